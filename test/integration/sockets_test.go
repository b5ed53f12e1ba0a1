package integration

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// startHostRules serves one guest under rules.
func startHostRules(t *testing.T, g *guestVM, rules string) *hostAgent {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rum.toml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	h := &hostAgent{socket: filepath.Join(t.TempDir(), "control.sock"), config: file}
	h.program = start(t, "rum-host-agent", "run", "--config", file, "--socket", h.socket, "--vm", g.vm())
	eventually(t, "the link", func() bool {
		st, err := control.NewClient(h.socket).Status(t.Context())
		return err == nil && len(st.VMs) == 1 && st.VMs[0].Generation > 0
	})
	return h
}

// forwardOf waits until a forward that has this among its addresses is as ok
// wants it.
func (h *hostAgent) forwardOf(t *testing.T, vm, address string, ok func(status.Forward) bool) (last status.Forward) {
	t.Helper()
	eventually(t, "the forward of "+address, func() bool {
		for _, f := range h.vm(t, vm).Forwards {
			for _, a := range append(f.Guest, f.Host...) {
				if a == address && ok(f) {
					last = f
					return true
				}
			}
		}
		return false
	})
	return last
}

// answer serves every connection with what it sent, once that has ended.
func answer(l net.Listener) {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				all, _ := io.ReadAll(c)
				_, _ = c.Write(all)
			}()
		}
	}()
}

// answered sends bytes, ends its sending and wants them back.
func answered(network, address string, size int) error {
	c, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	sent := bytes.Repeat([]byte(address), size/len(address)+1)
	go func() {
		_, _ = c.Write(sent)
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err == nil && !bytes.Equal(got, sent) {
		err = fmt.Errorf("%d bytes came back for %d, or others", len(got), len(sent))
	}
	return err
}

func listenSocket(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// The namespace shares its files with the host, so the sockets have two names.
func TestSocketsAndPortsAreForwardedToEachOther(t *testing.T) {
	dir := t.TempDir()
	inGuest, onHost, ofPort := filepath.Join(dir, "guest.sock"), filepath.Join(dir, "host.sock"), filepath.Join(dir, "port.sock")
	g := newGuest(t, "dev")
	h := startHostRules(t, g, fmt.Sprintf(`
[[ports]]
guest_socket = %[1]q
host_socket = %[2]q

[[ports]]
guest = 8080
host_socket = %[3]q

[[ports]]
vm = "dev"
guest_socket = "%[1]s2"
host = 8081
`, inGuest, onHost, ofPort))
	h.forwardOf(t, "dev", onHost, active)
	if err := answered("unix", onHost, 10); err == nil {
		t.Error("an answer although nobody listens in the guest")
	}
	h.forwardOf(t, "dev", inGuest, func(f status.Forward) bool { return f.LastError != "" })

	answer(listenSocket(t, inGuest))
	answer(listenSocket(t, inGuest+"2"))
	answer(g.listen(t, "127.0.0.1:8080"))
	h.forwardOf(t, "dev", ofPort, active)
	for _, at := range []struct{ network, address string }{{"unix", onHost}, {"unix", ofPort}, {"tcp", "127.0.0.1:8081"}, {"tcp", "[::1]:8081"}} {
		for _, size := range []int{1, 5 << 20} {
			if err := answered(at.network, at.address, size); err != nil {
				t.Errorf("%s, %d bytes: %v", at.address, size, err)
			}
		}
	}
	h.stop(t)
	for _, path := range []string{onHost, ofPort} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left behind", path)
		}
	}
}

func TestASocketOfAKilledHostAgentIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	g := newGuest(t, "dev")
	rules := fmt.Sprintf("[[ports]]\nguest = 8080\nhost_socket = %q\n", path)
	h := startHostRules(t, g, rules)
	answer(g.listen(t, "0.0.0.0:8080"))
	h.forwardOf(t, "dev", path, active)
	h.kill()
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
	h = startHostRules(t, g, rules)
	h.forwardOf(t, "dev", path, active)
	if err := answered("unix", path, 1000); err != nil {
		t.Error(err)
	}
}
