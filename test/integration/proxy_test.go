package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// startHostOver serves a guest by connections of their own, or one among others.
func startHostOver(t *testing.T, path string, g *guestVM) *hostAgent {
	t.Helper()
	if path != "mux" {
		return startHost(t, "", g)
	}
	h := &hostAgent{socket: filepath.Join(t.TempDir(), "control.sock")}
	h.program = start(t, "rum-host-agent", "run", "--socket", h.socket, "--vm", g.name+
		fmt.Sprintf("=exec:nsenter --net=/proc/%d/fd/%d %s --stdio", os.Getpid(), g.file.Fd(), filepath.Join(bin, "rum-guest-agent")))
	eventually(t, "the link", func() bool {
		st, err := control.NewClient(h.socket).Status(t.Context())
		return err == nil && st.VMs[0].State == status.Connected
	})
	return h
}

// proxy is the command that leads to a port.
func (h *hostAgent) proxy(t *testing.T, vm string, port int, flags ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, filepath.Join(bin, "rum-host-agent"), append([]string{"proxy", vm, fmt.Sprint(port), "--socket", h.socket}, flags...)...)
	c.WaitDelay = time.Second
	return c
}

// awaitListed waits until a port is known, whatever becomes of it.
func (h *hostAgent) awaitListed(t *testing.T, vm string, port int) {
	t.Helper()
	h.awaitForward(t, vm, port, "known", func(status.Forward) bool { return true })
}

// each serves every connection of a listener in the guest.
func each(l net.Listener, serve func(*net.TCPConn)) {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c.(*net.TCPConn))
		}
	}()
}

// count answers with how much it was sent, once that has ended.
func count(c *net.TCPConn) {
	defer c.Close()
	n, err := io.Copy(io.Discard, c)
	fmt.Fprintf(c, "%d bytes, %v\n", n, err)
}

// resets sends a line, and resets when one has come.
func resets(c *net.TCPConn) {
	_, _ = io.WriteString(c, "a line\n")
	_, _ = c.Read(make([]byte, 1))
	_ = c.SetLinger(0)
	_ = c.Close()
}

var bothPaths = []string{"unix", "mux"}

// inetd and its like give a program one socket for both.
func TestAProxyWithOneSocketForBothDirectionsPassesTheServicesEndOn(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	greet(g.listen(t, "127.0.0.1:703"), "hello")
	h.awaitListed(t, "dev", 703)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	p := h.proxy(t, "dev", 703)
	p.Stdin, p.Stdout = theirs, theirs
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	if got, err := io.ReadAll(ours); err != nil || string(got) != "hello" { // the proxy is killed if there is no end
		t.Errorf("%q, %v", got, err)
	}
	_ = ours.Close()
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

func TestAProxyEndsAsItsConnectionDid(t *testing.T) {
	for _, path := range bothPaths {
		t.Run(path, func(t *testing.T) {
			g := newGuest(t, "dev")
			h := startHostOver(t, path, g)
			// Ports that stay in the guest.
			each(g.listen(t, "127.0.0.1:700"), count)
			each(g.listen(t, "127.0.0.1:701"), resets)
			ended := make(chan error, 1)
			each(g.listen(t, "127.0.0.1:702"), func(c *net.TCPConn) {
				_, _ = io.WriteString(c, "go on\n")
				_, err := io.Copy(io.Discard, c)
				ended <- err
			})
			for port := 700; port <= 702; port++ {
				h.awaitListed(t, "dev", port)
			}

			upload := h.proxy(t, "dev", 700)
			upload.Stdin = bytes.NewReader(make([]byte, 3<<20))
			if out, err := upload.CombinedOutput(); err != nil || string(out) != "3145728 bytes, <nil>\n" {
				t.Errorf("an upload whose end is answered: %v, %s", err, out)
			}

			reset := h.proxy(t, "dev", 701)
			stdin, err := reset.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			_, _ = stdin.Write([]byte("x"))
			out, err := reset.CombinedOutput()
			if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 || !strings.Contains(string(out), "port 701 of dev: ") ||
				!strings.Contains(string(out), "the connection was reset\nsee why with: rum-host-agent explain 701 --vm dev") {
				t.Errorf("a connection that was reset: %v, %s", err, out)
			}

			for _, cut := range []struct {
				what string
				do   func(*exec.Cmd)
			}{
				{"the proxy is killed", func(proxy *exec.Cmd) { _ = proxy.Process.Kill() }},
				{"the proxy is told to end", func(proxy *exec.Cmd) { _ = proxy.Process.Signal(syscall.SIGTERM) }},
				{"the guest agent is killed", func(*exec.Cmd) {
					if path == "mux" {
						_ = syscall.Kill(guestAgentOf(t, h.cmd.Process.Pid), syscall.SIGKILL)
					} else {
						g.agent.kill()
						g.startAgent(t)
					}
				}},
				{"the agent is killed", func(*exec.Cmd) { h.kill() }},
			} {
				eventually(t, "a way to the guest", func() bool { return h.proxy(t, "dev", 700).Run() == nil })
				if err := endInTheMiddle(t, h, cut.do); err == nil {
					t.Errorf("%s: the proxy ended well", cut.what)
				}
				select {
				case err := <-ended:
					if !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("%s: the service read %v, want a reset", cut.what, err)
					}
				case <-time.After(20 * time.Second):
					t.Errorf("%s: the service was told nothing", cut.what)
				}
			}
		})
	}
}

// endInTheMiddle ends a proxy whose input has not ended.
func endInTheMiddle(t *testing.T, h *hostAgent, end func(*exec.Cmd)) error {
	t.Helper()
	proxy := h.proxy(t, "dev", 702)
	stdin, err := proxy.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := proxy.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, len("go on\n"))); err != nil {
		t.Fatal(err)
	}
	_, _ = stdin.Write([]byte("half of what there is"))
	end(proxy)
	return proxy.Wait()
}

// handedOver is the connection that proxy --fdpass gives to who runs it, as ssh does.
func (h *hostAgent) handedOver(t *testing.T, vm string, port int) handedOver {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	proxy := h.proxy(t, vm, port, "--fdpass")
	var said bytes.Buffer
	proxy.Stdout, proxy.Stderr = theirs, &said
	err = proxy.Run()
	_ = theirs.Close()
	if err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	oob := make([]byte, 64)
	n, got, _, _, err := unix.Recvmsg(int(ours.Fd()), make([]byte, 8), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n != 1 {
		t.Fatalf("%d bytes came with the descriptor: %v", n, err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:got])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d messages: %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("descriptors %v: %v", fds, err)
	}
	if flags, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("the descriptor does not block: %v", err)
	}
	f := os.NewFile(uintptr(fds[0]), "handed over")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(handedOver)
}

// handedOver is a connection of whatever kind.
type handedOver interface {
	net.Conn
	CloseWrite() error
}

// What is handed over is whole by whatever way there is to the guest. Where it is the connection to
// the guest itself, the agent has no part in it, and it outlives the agent.
func TestAConnectionThatIsHandedOverIsWhole(t *testing.T) {
	for _, row := range []struct {
		path  string
		older bool // the guest agent
		own   bool // it is the receiver's
		kind  string
		reset bool // there is a reset on it
	}{
		{path: "unix", own: true, kind: "unix"},
		{path: "mux", kind: "unix"},
		{path: "bridge", own: true, kind: "tcp", reset: true},
		{path: "unix", older: true, kind: "tcp", reset: true},
	} {
		t.Run(fmt.Sprintf("%s, older %v", row.path, row.older), func(t *testing.T) {
			g := newGuest(t, "dev")
			each(g.listen(t, "0.0.0.0:7700"), count)
			each(g.listen(t, "0.0.0.0:7701"), resets)
			var h *hostAgent
			switch {
			case row.path == "bridge":
				h = startHost(t, ",bridge="+g.joined(t), g)
			case row.older:
				g.key = "" // which would prove that the reply was changed
				g.agent.kill()
				g.startAgent(t)
				g.socket = withoutFeatures(t, g.socket)
				h = startHost(t, "", g)
			default:
				h = startHostOver(t, row.path, g)
			}
			h.awaitForward(t, "dev", 7700, "active", active)
			h.awaitForward(t, "dev", 7701, "active", active)
			if row.path == "bridge" {
				g.agent.kill()
				h.awaitForward(t, "dev", 7700, "on the bridge", func(f status.Forward) bool { return f.Path == "bridge" })
			}

			c := h.handedOver(t, "dev", 7700)
			if kind := c.RemoteAddr().Network(); kind != row.kind {
				t.Errorf("a socket of %s was handed over, want %s", kind, row.kind)
			}
			for range 100 {
				if _, err := c.Write(make([]byte, 10_000)); err != nil {
					t.Fatal(err)
				}
			}
			_ = c.CloseWrite()
			if out, err := io.ReadAll(c); err != nil || string(out) != "1000000 bytes, <nil>\n" {
				t.Errorf("%q, %v", out, err)
			}
			h.awaitForward(t, "dev", 7700, "counted if the agent carries it", func(f status.Forward) bool {
				if row.own {
					return f.ConnectionsTotal == 0 && f.BytesOut == 0 && f.Path == row.path
				}
				return f.ConnectionsTotal == 1 && f.ConnectionsActive == 0 && f.BytesOut == 1_000_000 && f.Path == row.path
			})

			c = h.handedOver(t, "dev", 7701)
			_, _ = c.Write([]byte("x"))
			if out, err := io.ReadAll(c); string(out) != "a line\n" && err == nil || row.reset && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%q and %v of a service that resets", out, err)
			}

			c = h.handedOver(t, "dev", 7700)
			h.kill()
			_, _ = c.Write(make([]byte, 10_000))
			_ = c.CloseWrite()
			out, err := io.ReadAll(c)
			if whole := err == nil && string(out) == "10000 bytes, <nil>\n"; whole != row.own {
				t.Errorf("%q and %v once the agent was killed", out, err)
			}
		})
	}
}

// As in: rum-host-agent proxy dev 704 | head -1
func TestAProxyWhoseReaderHasGoneEndsLikeAnyCommand(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	each(g.listen(t, "127.0.0.1:704"), func(c *net.TCPConn) {
		defer c.Close()
		for line := []byte("a line\n"); ; {
			if _, err := c.Write(line); err != nil {
				return
			}
		}
	})
	h.awaitListed(t, "dev", 704)
	ours, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	p := h.proxy(t, "dev", 704)
	var said bytes.Buffer
	p.Stdout, p.Stderr = theirs, &said
	stdin, err := p.StdinPipe() // which has no end
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	if _, err := io.ReadFull(ours, make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	_ = ours.Close()
	_ = p.Wait()
	if how := p.ProcessState.Sys().(syscall.WaitStatus); !how.Signaled() || how.Signal() != syscall.SIGPIPE || said.Len() > 0 {
		t.Errorf("%v, and it says %q", p.ProcessState, said.String())
	}
}

// Another kind of connection in its place would be the agent's, and come before the service had taken it.
func TestNothingIsHandedOverByAGuestAgentThatGivesNoAnswer(t *testing.T) {
	g := newGuest(t, "dev")
	greet(g.listen(t, "0.0.0.0:7705"), "hello")
	h := startHost(t, "", g)
	h.awaitForward(t, "dev", 7705, "active", active)
	if err := syscall.Kill(g.agent.cmd.Process.Pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(g.agent.cmd.Process.Pid, syscall.SIGCONT) })
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	proxy := h.proxy(t, "dev", 7705, "--fdpass")
	var said bytes.Buffer
	proxy.Stdout, proxy.Stderr = theirs, &said
	if err := proxy.Run(); err == nil || !strings.Contains(said.String(), "rum-host-agent explain") {
		t.Errorf("%v: %s", err, said.String())
	}
}
