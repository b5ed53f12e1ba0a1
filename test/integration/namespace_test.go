package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace with its loopback up: the inside of a VM.
type namespace struct {
	file *os.File
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	ns := &namespace{}
	onOwnThread(t, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		var err error
		if ns.file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		return exec.Command("ip", "link", "set", "lo", "up").Run()
	})
	t.Cleanup(func() { _ = ns.file.Close() })
	return ns
}

// do runs f on a thread that is in the namespace; sockets opened and processes
// started there belong to it.
func (ns *namespace) do(t *testing.T, f func() error) {
	t.Helper()
	onOwnThread(t, func() error {
		if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("setns: %w", err)
		}
		return f()
	})
}

// onOwnThread runs f on a thread that ends with it, because it is not fit for
// anything else afterwards.
func onOwnThread(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// listen opens a listener in the namespace.
func (ns *namespace) listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	var l net.Listener
	network := "tcp4"
	if strings.HasPrefix(addr, "[") {
		network = "tcp6"
	}
	ns.do(t, func() (err error) {
		l, err = net.Listen(network, addr)
		return err
	})
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// joined links the namespace to the host with a pair of interfaces and returns
// the guest's address there.
func (ns *namespace) joined(t *testing.T) string {
	t.Helper()
	const host, guest = "192.0.2.1", "192.0.2.2"
	onOwnThread(t, func() error {
		return command("ip", "link", "add", "rum0", "type", "veth", "peer", "name", "rum1", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.file.Fd()))
	})
	for _, args := range [][]string{{"addr", "add", host + "/24", "dev", "rum0"}, {"link", "set", "rum0", "up"}} {
		if err := command("ip", args...); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = command("ip", "link", "del", "rum0") })
	ns.do(t, func() error {
		if err := command("ip", "addr", "add", guest+"/24", "dev", "rum1"); err != nil {
			return err
		}
		return command("ip", "link", "set", "rum1", "up")
	})
	return guest
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// awaitAnswer waits until something in the namespace says hello to who connects.
func (ns *namespace) awaitAnswer(t *testing.T, addr, hello string) {
	t.Helper()
	eventually(t, addr+" to answer", func() (ok bool) {
		ns.do(t, func() error { ok = answers(addr, hello); return nil })
		return ok
	})
}
