package integration

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// As with "ulimit -n 64", and 300 clients that stay.
func TestClientsBeyondTheDescriptorsAreResetAndStatusAnswers(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	g.echo(t, "0.0.0.0:8080")
	h.awaitForward(t, "dev", 8080, "active", active)
	limit := unix.Rlimit{Cur: 64, Max: 64}
	if err := unix.Prlimit(h.cmd.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	const clients = 300
	var all sync.WaitGroup
	var mu sync.Mutex
	var served []net.Conn
	for range clients {
		all.Go(func() {
			c, err := echoed("127.0.0.1:8080")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				served = append(served, c)
			case !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE):
				t.Errorf("a client is neither served nor reset: %v", err)
			}
		})
	}
	all.Wait()
	if len(served) == 0 || len(served) == clients {
		t.Errorf("%d of %d clients are served", len(served), clients)
	}
	if text := statusJSON(t, h).Warning; !strings.Contains(text, "(ulimit -n 64)") {
		t.Errorf("status says %q", text)
	}
	if n := strings.Count(h.log.String(), "ulimit -n 64"); n != 1 {
		t.Errorf("the log says it %d times", n)
	}
	for _, c := range served {
		_ = c.Close()
	}
	eventually(t, "a client is served again", func() bool {
		c, err := echoed("127.0.0.1:8080")
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// echoed returns a connection to an echo that has answered.
func echoed(addr string) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = c.Write([]byte("x"))
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}
