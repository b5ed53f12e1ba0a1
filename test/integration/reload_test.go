package integration

import (
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Each file moves another port, and leaves that of the connection as it is.
func TestAConnectionLivesThroughAHundredReloads(t *testing.T) {
	g := newGuest(t, "dev")
	rules := func(n int) string {
		return fmt.Sprintf("[[ports]]\nguest = 7860\nhost = 7861\n[[ports]]\nguest = 7862\nhost = %d\n", 7863+n%2)
	}
	h := startHostRules(t, g, rules(0))
	l := g.listen(t, "0.0.0.0:7860")
	g.listen(t, "0.0.0.0:7862")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	h.awaitForward(t, "dev", 7860, "open", active)
	h.awaitForward(t, "dev", 7862, "open", active)
	c, err := net.Dial("tcp", "127.0.0.1:7861")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	agent := control.NewClient(h.socket)
	idle, err := net.Dial("tcp", "127.0.0.1:7861")
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	began := time.Now()
	for n := 1; n <= 100; n++ {
		if err := os.WriteFile(h.config, []byte(rules(n)), 0o600); err != nil {
			t.Fatal(err)
		}
		all, err := agent.Reload(t.Context())
		if err != nil || all.Config.Error != "" {
			t.Fatalf("reload %d: %+v, %v", n, all, err)
		}
		// What the file says is so when the reload is over.
		if f, _ := h.forward(t, "dev", 7862); f.State != status.Active || f.Host[0] != fmt.Sprintf("127.0.0.1:%d", 7863+n%2) {
			t.Fatalf("after reload %d: %+v", n, f)
		}
		said := fmt.Sprintf("%3d", n)
		heard := make([]byte, len(said))
		if _, err := io.WriteString(c, said); err != nil {
			t.Fatalf("after reload %d: %v", n, err)
		}
		if _, err := io.ReadFull(c, heard); err != nil || string(heard) != said {
			t.Fatalf("after reload %d: %q, %v", n, heard, err)
		}
	}
	idleFor := time.Since(began)
	_ = idle.SetDeadline(time.Now().Add(time.Minute))
	heard := make([]byte, 5)
	if _, err := io.WriteString(idle, "still"); err != nil {
		t.Fatalf("the idle connection: %v", err)
	}
	if _, err := io.ReadFull(idle, heard); err != nil || string(heard) != "still" {
		t.Fatalf("the idle connection: %q, %v", heard, err)
	}
	t.Logf("a connection that was idle for %v lived through 100 reloads", idleFor.Round(time.Millisecond))
	if f, _ := h.forward(t, "dev", 7860); f.ConnectionsTotal != 2 || f.ConnectionsActive != 2 || f.LastError != "" {
		t.Errorf("%+v", f)
	}
}
