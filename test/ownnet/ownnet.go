// Package ownnet gives a package's tests a network of their own. Tests of several
// packages run at once, and on one loopback interface they would take each other's ports.
package ownnet

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// entered tells a test binary that it is the first in such a network, and what that
// starts that it is in one.
const entered = "RUM_TEST_OWN_NETWORK"

// Env is for the environment of what a test starts, where that is not its own: it may be
// the test binary under another name.
const Env = entered + "=before"

// Enter is called first in TestMain. It runs the test binary again in a network
// namespace where there is only loopback, with the same user, and exits as that did.
// There it returns. It also does where user namespaces are not to be had, which is
// said: the tests then share the machine's ports with whatever else uses them.
func Enter() {
	switch os.Getenv(entered) {
	case "now":
		if err := up(); err != nil {
			fail(err)
		}
		name, value, _ := strings.Cut(Env, "=")
		if err := os.Setenv(name, value); err != nil {
			fail(err)
		}
		return
	case "before": // this is what a test started
		return
	}
	self, err := os.Executable()
	if err != nil {
		fail(err)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), entered+"=now")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if uid, gid := os.Geteuid(), os.Getegid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN} // for the interface
	}
	runtime.LockOSThread() // whose death would be signalled
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "no network of their own for these tests: %v\n", err)
		return
	}
	err = cmd.Wait()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		fail(err)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

// up brings up the loopback interface.
func up() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOOPBACK)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "a network for the tests:", err)
	os.Exit(1)
}

// last is the port that was given out last. They are below those that the kernel gives
// to clients, which come and go all the time.
var last atomic.Uint32

const first, count = 20000, 12000

// FreePort is a port that is free on both loopback addresses, for TCP and UDP, and that
// no other caller gets for a while.
func FreePort(t testing.TB) uint16 {
	t.Helper()
	for range count {
		port := uint16(first + last.Add(1)%count)
		if free(port) {
			return port
		}
	}
	t.Fatal("no port is free on both loopback addresses")
	return 0
}

func free(port uint16) bool {
	for _, host := range []string{"127.0.0.1", "::1"} {
		addr := net.JoinHostPort(host, fmt.Sprint(port))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return false
		}
		_ = l.Close()
		c, err := net.ListenPacket("udp", addr)
		if err != nil {
			return false
		}
		_ = c.Close()
	}
	return true
}
