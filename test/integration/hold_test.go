package integration

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// hello asks a server for its greeting, and gives it all the time there is.
func hello(addr string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "hello"); err != nil {
		return "", err
	}
	got, err := io.ReadAll(c)
	return string(got), err
}

// version serves every connection with what it sent and a number.
func version(l net.Listener, n int, done *sync.WaitGroup) {
	done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				defer c.Close()
				got := make([]byte, 5)
				if _, err := io.ReadFull(c, got); err == nil {
					fmt.Fprintf(c, "%s from %d", got, n)
				}
			})
		}
	})
}

// A client that comes right after the server's end, one while the host knows of it, and
// one right after the next server's beginning.
func TestNoClientSeesAServerThatRestartsTenTimes(t *testing.T) {
	for name, rule := range map[string]string{"seen": "", "static": "static = true\n"} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, "dev")
			h := startHostRules(t, g, "[[ports]]\nguest = 7850\nhost = 7851\nhold = \"30s\"\n"+rule)
			var servers, clients sync.WaitGroup
			defer servers.Wait()
			l := g.listen(t, "0.0.0.0:7850")
			version(l, 0, &servers)
			h.awaitForward(t, "dev", 7850, "open", func(f status.Forward) bool { return active(f) && f.Reason == "" })
			for n := 1; n <= 10; n++ {
				ask := func(when string) {
					clients.Go(func() {
						if got, err := hello("127.0.0.1:7851"); err != nil || got != fmt.Sprintf("hello from %d", n) {
							t.Errorf("restart %d, %s: %q, %v", n, when, got, err)
						}
					})
				}
				_ = l.Close()
				ask("at once")
				h.awaitForward(t, "dev", 7850, "held", func(f status.Forward) bool { return active(f) && f.Reason == status.Held })
				ask("while it is held")
				l = g.listen(t, "0.0.0.0:7850")
				version(l, n, &servers)
				ask("after it is back")
				clients.Wait()
				h.awaitForward(t, "dev", 7850, "open again", func(f status.Forward) bool { return active(f) && f.Reason == "" })
			}
			f, _ := h.forward(t, "dev", 7850)
			if f.ConnectionsTotal != 30 || f.LastError != "" {
				t.Errorf("%+v", f)
			}
			_ = l.Close()
		})
	}
}
