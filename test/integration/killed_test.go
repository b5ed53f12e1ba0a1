package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Each agent is killed so often, with so many uploads and as many downloads under way.
const kills, killedTransfers = 10, 5

// killed is a service in a guest that takes uploads and gives downloads without end, and
// the agents that carry them.
type killed struct {
	guest   *guestVM
	host    *hostAgent
	port    int
	uploads chan error // how each ended for the service
}

func newKilled(t *testing.T, g *guestVM, port int) *killed {
	t.Helper()
	k := &killed{guest: g, port: port, uploads: make(chan error, killedTransfers)}
	l := g.listen(t, fmt.Sprintf("0.0.0.0:%d", port))
	serveEach(l, func(c net.Conn) {
		what := make([]byte, 1)
		if _, err := io.ReadFull(c, what); err != nil {
			return // one that was to see whether the service is reached
		}
		if what[0] == 'd' {
			_, _ = io.Copy(c, endless{})
			return
		}
		_, _ = c.Write(what)
		_, err := io.Copy(io.Discard, c)
		k.uploads <- err
	})
	return k
}

// endless is a source of bytes without end, at a pace that leaves the machine to others.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	time.Sleep(10 * time.Millisecond)
	return min(len(b), 8<<10), nil
}

// transfers begins uploads and downloads, and returns once bytes flow in all of them.
func (k *killed) transfers(t *testing.T) (downloads, uploads []net.Conn) {
	t.Helper()
	for i := range 2 * killedTransfers {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", k.port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		what := "du"[i%2 : i%2+1]
		if _, err := io.WriteString(c, what); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatalf("before the kill: %v", err)
		}
		if what == "d" {
			downloads = append(downloads, c)
			continue
		}
		uploads = append(uploads, c)
		go func() { _, _ = io.Copy(c, endless{}) }()
	}
	return downloads, uploads
}

// wantResets holds that nothing ended as if it were complete, for the clients nor for
// the service.
func (k *killed) wantResets(t *testing.T, downloads []net.Conn) {
	t.Helper()
	var all sync.WaitGroup
	for _, c := range downloads {
		all.Go(func() {
			if n, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("a download ended after %d bytes with %v for the client, want a reset", n, err)
			}
		})
	}
	all.Wait()
	for range killedTransfers {
		select {
		case err := <-k.uploads:
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("an upload ended with %v for the service, want a reset", err)
			}
		case <-time.After(time.Minute): // what another host has received it still passes on
			t.Fatal("an upload did not end for the service")
		}
	}
}

// awaitPath waits until new connections take a path.
func (k *killed) awaitPath(t *testing.T, path string) {
	t.Helper()
	k.host.awaitForward(t, k.guest.name, k.port, "on "+path, func(f status.Forward) bool { return active(f) && f.Path == path })
}

func (k *killed) awaitLink(t *testing.T, linked bool) {
	t.Helper()
	eventually(t, fmt.Sprintf("a link: %v", linked), func() bool {
		return (k.host.vm(t, k.guest.name).State == status.Connected) == linked
	})
}

func TestAKilledAgentResetsWhatItCarriesBySocketsOfTheirOwn(t *testing.T) {
	k := newKilled(t, newGuest(t, "vm"), 7310)
	t.Run("host", func(t *testing.T) {
		for range kills {
			k.host = startHost(t, "", k.guest)
			k.awaitPath(t, "unix")
			downloads, _ := k.transfers(t)
			k.host.kill()
			k.wantResets(t, downloads)
		}
	})
	t.Run("guest", func(t *testing.T) {
		k.host = startHost(t, "", k.guest)
		for range kills {
			k.awaitLink(t, true)
			k.awaitPath(t, "unix")
			downloads, _ := k.transfers(t)
			k.guest.agent.kill()
			k.wantResets(t, downloads)
			k.awaitLink(t, false)
			k.guest.startAgent(t)
		}
	})
}

func TestAKilledAgentResetsWhatItCarriesInOneConnection(t *testing.T) {
	g := &guestVM{namespace: newNamespace(t), name: "vm"}
	k := newKilled(t, g, 7320)
	begin := func(t *testing.T) {
		t.Helper()
		h := &hostAgent{socket: filepath.Join(t.TempDir(), "control.sock")}
		h.program = start(t, "rum-host-agent", "run", "--socket", h.socket, "--vm",
			fmt.Sprintf("vm=exec:nsenter --net=/proc/%d/fd/%d %s --stdio", os.Getpid(), g.file.Fd(), filepath.Join(bin, "rum-guest-agent")))
		k.host = h
		eventually(t, "the agent to begin", func() bool { _, err := control.NewClient(h.socket).Status(t.Context()); return err == nil })
	}
	t.Run("host", func(t *testing.T) {
		for range kills {
			begin(t)
			k.awaitPath(t, "mux")
			downloads, _ := k.transfers(t)
			k.host.kill()
			k.wantResets(t, downloads)
		}
	})
	t.Run("guest", func(t *testing.T) {
		begin(t)
		for range kills {
			k.awaitLink(t, true)
			k.awaitPath(t, "mux")
			downloads, _ := k.transfers(t)
			pid := guestAgentOf(t, k.host.cmd.Process.Pid)
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			k.wantResets(t, downloads)
			eventually(t, "another guest agent", func() bool { return guestAgentOf(t, k.host.cmd.Process.Pid) != pid })
		}
	})
}

// guestAgentOf is the guest agent that a host agent has started; 0 for none yet.
func guestAgentOf(t *testing.T, host int) int {
	t.Helper()
	parents := make(map[int]int)
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var agents []int
	for _, dir := range all {
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue // it has ended
		}
		var pid, ppid int
		var state string
		_, _ = fmt.Sscan(filepath.Base(dir), &pid)
		_, _ = fmt.Sscan(string(stat[bytes.LastIndexByte(stat, ')')+1:]), &state, &ppid)
		parents[pid] = ppid
		if line, _ := os.ReadFile(filepath.Join(dir, "cmdline")); strings.HasSuffix(string(line), "rum-guest-agent\x00--stdio\x00") && state != "Z" && !strings.HasPrefix(string(line), "nsenter") {
			agents = append(agents, pid)
		}
	}
	for _, pid := range agents {
		for p := parents[pid]; p > 1; p = parents[p] {
			if p == host {
				return pid
			}
		}
	}
	return 0
}

// A connection over the bridge is the host agent's alone.
func TestOnTheBridgeAKilledHostAgentResetsAndAKilledGuestAgentTouchesNothing(t *testing.T) {
	g := newGuest(t, "vm")
	bridge := g.joined(t)
	g.agent.kill()
	k := newKilled(t, g, 7300)
	t.Run("host", func(t *testing.T) {
		for range kills {
			g.startAgent(t)
			k.host = startHost(t, ",bridge="+bridge, g)
			k.awaitPath(t, "unix")
			g.agent.kill()
			k.awaitPath(t, "bridge")
			downloads, _ := k.transfers(t)
			k.host.kill()
			k.wantResets(t, downloads)
		}
	})
	t.Run("guest", func(t *testing.T) {
		g.startAgent(t)
		k.host = startHost(t, ",bridge="+bridge, g)
		k.awaitPath(t, "unix")
		g.agent.kill()
		k.awaitPath(t, "bridge")
		downloads, uploads := k.transfers(t)
		for range kills {
			g.startAgent(t)
			k.awaitPath(t, "unix")
			g.agent.kill()
			k.awaitPath(t, "bridge")
			for _, c := range downloads {
				_ = c.SetDeadline(time.Now().Add(30 * time.Second))
				if _, err := io.ReadFull(c, make([]byte, 100_000)); err != nil {
					t.Fatalf("the death of the guest agent touched a download on the bridge: %v", err)
				}
			}
			select {
			case err := <-k.uploads:
				t.Fatalf("the death of the guest agent touched an upload on the bridge: %v", err)
			default:
			}
		}
		for _, c := range uploads {
			_ = c.(*net.TCPConn).CloseWrite()
		}
		for range uploads {
			if err := <-k.uploads; err != nil {
				t.Errorf("an upload that the client ended ended with %v for the service", err)
			}
		}
	})
}
