package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/test/logbuf"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace, entered by a thread that does what it is given.
type namespace struct{ work chan func() }

func newNamespace() (*namespace, error) {
	n := &namespace{work: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = exec.Command("ip", "link", "set", "lo", "up").Run()
		}
		ready <- err
		for f := range n.work {
			f()
		}
	}()
	return n, <-ready
}

// do runs something in the namespace.
func (n *namespace) do(f func() error) error {
	done := make(chan error, 1)
	n.work <- func() { done <- f() }
	return <-done
}

// listenMany opens ports that are forwarded, and returns what closes them.
func (n *namespace) listenMany(count int) (closeAll func(), err error) {
	var open []net.Listener
	closeAll = func() {
		for _, l := range open {
			_ = l.Close()
		}
	}
	return closeAll, n.do(func() error {
		for i := range count {
			l, err := net.Listen("tcp", fmt.Sprintf(":%d", 9000+i))
			if err != nil {
				return err
			}
			open = append(open, l)
		}
		return nil
	})
}

// agents are a guest agent and a host agent with a link between them.
type agents struct {
	listen            []string // the guest agent's flags about its endpoint
	guest, host       *exec.Cmd
	guestLog, hostLog logbuf.Buffer
}

const (
	linkSocket    = "/run/agent.sock"
	controlSocket = "/run/host.sock"
	startTime     = 30 * time.Second
)

// startGuest starts the guest agent and waits until it watches; prepare is what a shell
// does first in a mount namespace of its own.
func (a *agents) startGuest(bin string, guest *namespace, prepare string) error {
	if err := guest.do(func() error { return a.launchGuest(bin, prepare) }); err != nil {
		return err
	}
	return a.await("the guest agent to watch", func() bool { return sources(a.guestLog.String()) != "" })
}

func (a *agents) launchGuest(bin, prepare string) error {
	argv := []string{"-m", "sh", "-c", prepare + `exec "$@"`, "sh", filepath.Join(bin, "rum-guest-agent")}
	a.guest = exec.Command("unshare", append(argv, a.listen...)...)
	a.guest.Stderr = &a.guestLog
	return a.guest.Start()
}

// startHost starts the host agent and waits for the link.
func (a *agents) startHost(bin, endpoint string) error {
	program := filepath.Join(bin, "rum-host-agent")
	a.host = exec.Command(program, "run", "--vm", "bench="+endpoint, "--socket", controlSocket)
	a.host.Stderr = &a.hostLog
	if err := a.host.Start(); err != nil {
		return err
	}
	return a.await("a link", func() bool {
		out, _ := exec.Command(program, "status", "--json", "--socket", controlSocket).Output()
		return strings.Contains(string(out), `"state": "connected"`)
	})
}

func (a *agents) await(what string, is func() bool) error {
	for deadline := time.Now().Add(startTime); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited in vain for %s\n%s%s", what, a.guestLog.String(), a.hostLog.String())
		}
	}
	return nil
}

// sources is what a guest agent's log says that it uses.
func sources(log string) string {
	for line := range strings.SplitSeq(log, "\n") {
		if _, after, ok := strings.Cut(line, `msg="watching sockets" `); ok {
			return strings.TrimSpace(after)
		}
	}
	return ""
}

func (a *agents) stop() error {
	for _, cmd := range a.running() {
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
			return err
		}
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%w\n%s%s", err, a.guestLog.String(), a.hostLog.String())
		}
	}
	return nil
}

// running are the agents that were started.
func (a *agents) running() (all []*exec.Cmd) {
	for _, cmd := range []*exec.Cmd{a.host, a.guest} {
		if cmd != nil && cmd.Process != nil {
			all = append(all, cmd)
		}
	}
	return all
}

// idle prints what the agents do in some time.
func (a *agents) idle(span time.Duration, with string) error {
	type reading struct {
		switches int
		cpu      time.Duration
	}
	read := func(cmd *exec.Cmd) (r reading, err error) {
		r.switches, err = switches(cmd.Process.Pid)
		if err == nil {
			r.cpu, err = cpu(cmd.Process.Pid)
		}
		return r, err
	}
	before := make(map[*exec.Cmd]reading)
	for _, cmd := range a.running() {
		r, err := read(cmd)
		if err != nil {
			return err
		}
		before[cmd] = r
	}
	time.Sleep(span)
	for _, cmd := range a.running() {
		name := "guest agent, "
		if cmd == a.host {
			name = "host agent, "
		}
		r, err := read(cmd)
		if err != nil {
			return err
		}
		fmt.Printf("  %-34s %12.1f %12.3f %14.1f\n", name+with,
			float64(r.switches-before[cmd].switches)/span.Seconds(), 100*(r.cpu-before[cmd].cpu).Seconds()/span.Seconds(), rss(cmd.Process.Pid))
	}
	return nil
}

// switches counts the context switches of all threads of a process.
func switches(pid int) (sum int, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		return 0, err
	}
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		for line := range strings.SplitSeq(string(b), "\n") {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.HasSuffix(name, "_ctxt_switches") {
				n, err := strconv.Atoi(strings.TrimSpace(value))
				if err != nil {
					return 0, err
				}
				sum += n
			}
		}
	}
	return sum, nil
}

// cpu is the processor time of all threads of a process (proc_pid_schedstat, in
// nanoseconds).
func cpu(pid int) (sum time.Duration, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		first, _, _ := strings.Cut(string(b), " ")
		n, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n)
	}
	return sum, nil
}

// rss is the resident memory of a process in MiB.
func rss(pid int) float64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if f := strings.Fields(string(b)); len(f) > 1 {
		pages, _ := strconv.Atoi(f[1])
		return float64(pages*os.Getpagesize()) / (1 << 20)
	}
	return 0
}
