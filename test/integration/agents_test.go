package integration

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/logbuf"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// program is an agent that runs.
type program struct {
	cmd  *exec.Cmd
	log  *logbuf.Buffer
	done chan struct{}
	err  error
}

// start starts an agent and ends it with the test. A race that the detector
// found, or a panic, fails the test.
func start(t *testing.T, name string, args ...string) *program {
	t.Helper()
	return startBy(t, filepath.Join(bin, name), args...)
}

// startBy is start by way of another program.
func startBy(t *testing.T, name string, args ...string) *program {
	t.Helper()
	return startCommand(t, exec.Command(name, args...))
}

func startCommand(t *testing.T, cmd *exec.Cmd) *program {
	t.Helper()
	p := &program{cmd: cmd, log: &logbuf.Buffer{}, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop(t)
		if log := p.log.String(); t.Failed() || strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic:") {
			t.Errorf("%v said:\n%s", cmd, log)
		}
	})
	return p
}

// stop asks the agent to end and waits for it.
func (p *program) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // for the goroutines
		time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
		<-p.done
		t.Errorf("%s did not end when told to", p.cmd.Path)
	}
}

// kill is a crash.
func (p *program) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// descriptors is how many the agent has open.
func (p *program) descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// guestVM is a namespace with a guest agent in it.
type guestVM struct {
	*namespace
	name, socket string
	key          string // the file with its key, which what reaches further than ports takes
	flags        []string
	agent        *program
}

// vm is what the host agent is told of it.
func (g *guestVM) vm() string {
	if g.key == "" {
		return g.name + "=unix:" + g.socket
	}
	return g.name + "=unix:" + g.socket + ",key=" + g.key
}

func newGuest(t *testing.T, name string, flags ...string) *guestVM {
	t.Helper()
	g := &guestVM{namespace: newNamespace(t), name: name, socket: filepath.Join(t.TempDir(), name+".sock"), flags: flags}
	g.key = filepath.Join(t.TempDir(), "key")
	if err := keyfile.WritePrivate(g.key, keyfile.New().Encode()); err != nil {
		t.Fatal(err)
	}
	g.startAgent(t)
	return g
}

func (g *guestVM) startAgent(t *testing.T) {
	t.Helper()
	g.do(t, func() error {
		args := append([]string{"--listen", "unix:" + g.socket}, g.flags...)
		if g.key != "" {
			args = append(args, "--key-file", g.key)
		}
		g.agent = start(t, "rum-guest-agent", args...)
		return nil
	})
}

// hostAgent is a running host agent.
type hostAgent struct {
	*program
	socket string
	config string // its file, where it has one of its own
}

// startHost serves guests; options maps a guest's name to what follows its
// endpoint.
func startHost(t *testing.T, options string, guests ...*guestVM) *hostAgent {
	t.Helper()
	h := &hostAgent{socket: filepath.Join(t.TempDir(), "control.sock")}
	args := []string{"run", "--socket", h.socket}
	for _, g := range guests {
		args = append(args, "--vm", g.vm()+options)
	}
	h.program = start(t, "rum-host-agent", args...)
	eventually(t, "the links", func() bool {
		st, err := control.NewClient(h.socket).Status(t.Context())
		return err == nil && len(st.VMs) == len(guests) && !slices.ContainsFunc(st.VMs, func(vm status.VM) bool {
			return vm.State != status.Connected || vm.Generation == 0
		})
	})
	return h
}

// vm is what the agent says of a VM.
func (h *hostAgent) vm(t *testing.T, name string) status.VM {
	t.Helper()
	st, err := control.NewClient(h.socket).StatusOf(t.Context(), status.Query{VM: name})
	if err != nil {
		t.Fatal(err)
	}
	if len(st.VMs) != 1 {
		t.Fatalf("the agent knows no VM %s", name)
	}
	return st.VMs[0]
}

// forward is the forward of a TCP port.
func (h *hostAgent) forward(t *testing.T, vm string, port int) (status.Forward, bool) {
	t.Helper()
	for _, f := range h.vm(t, vm).Forwards {
		if f.Proto == "tcp" && int(f.Port) == port {
			return f, true
		}
	}
	return status.Forward{}, false
}

// awaitForward waits until the forward of a port is as ok wants it.
func (h *hostAgent) awaitForward(t *testing.T, vm string, port int, what string, ok func(status.Forward) bool) status.Forward {
	t.Helper()
	var last status.Forward
	eventually(t, fmt.Sprintf("port %d of %s to be %s", port, vm, what), func() bool {
		f, found := h.forward(t, vm, port)
		last = f
		return found && ok(f)
	})
	return last
}

func active(f status.Forward) bool { return f.State == status.Active }

// eventually polls: what is waited for happens in other processes. The longer it takes the more seldom, for a look takes
// processor time from them.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	pause := 10 * time.Millisecond
	for end := time.Now().Add(15 * time.Second); !ok(); pause = min(pause*3/2, 100*time.Millisecond) {
		time.Sleep(pause)
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// answers reports whether something accepts connections and says hello.
func answers(addr, hello string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	got := make([]byte, len(hello))
	n, _ := c.Read(got)
	return string(got[:n]) == hello
}

// serveEach serves every connection of l by a goroutine of its own, and closes it afterwards.
func serveEach(l net.Listener, serve func(net.Conn)) {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
}

// greet serves every connection of l with a greeting.
func greet(l net.Listener, hello string) {
	serveEach(l, func(c net.Conn) { _, _ = io.WriteString(c, hello) })
}
