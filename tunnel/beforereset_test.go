package tunnel_test

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// dialer connects to a target in one of the ways that are compared.
type dialer func(t *testing.T, target wire.Target) *net.TCPConn

// besideLoopback has a trial run many times over loopback and through each kind of
// tunnel. What arrives over loopback in every run arrives through the tunnel too.
func besideLoopback(t *testing.T, trial func(t *testing.T, dial dialer) bool) {
	const trials = 40
	count := func(t *testing.T, dial dialer) (arrived int) {
		for range trials {
			if trial(t, dial) {
				arrived++
			}
		}
		return arrived
	}
	loopback := count(t, func(t *testing.T, target wire.Target) *net.TCPConn {
		c, err := net.Dial("tcp", target.Addrs[0].String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		return c.(*net.TCPConn)
	})
	eachKind(t, func(t *testing.T, l *link) {
		ours := count(t, func(t *testing.T, target wire.Target) *net.TCPConn { return through(t, l, target) })
		if ours < loopback {
			t.Errorf("%d of %d times everything arrived, %d times over loopback", ours, trials, loopback)
		}
	})
}

// A server answers before the upload has ended and closes, as one does that says
// 413. The client sees the answer.
func TestAnEarlyAnswerArrivesAlthoughTheServerCloses(t *testing.T) {
	answer := randomBytes(20_000)
	target := service(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_, _ = c.Write(answer)
		_ = c.Close() // with bytes unread: a reset
	})
	besideLoopback(t, func(t *testing.T, dial dialer) bool {
		c := dial(t, target)
		defer c.Close()
		for chunk := make([]byte, 64<<10); ; {
			if _, err := c.Write(chunk); err != nil {
				break
			}
		}
		got, _ := io.ReadAll(c)
		return len(got) == len(answer)
	})
}

// The same server closes without anything unread, and is sent more afterwards.
func TestAnAnswerWithItsEndArrivesAlthoughMoreIsSent(t *testing.T) {
	answer := randomBytes(20_000)
	target := service(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_, _ = c.Write(answer)
		_ = c.Close()
	})
	besideLoopback(t, func(t *testing.T, dial dialer) bool {
		c := dial(t, target)
		defer c.Close()
		_, _ = c.Write([]byte{1})
		_, _ = io.ReadFull(c, make([]byte, 1))
		for range 20 {
			if _, err := c.Write([]byte{2}); err != nil {
				break
			}
		}
		got, err := io.ReadAll(c)
		return len(got) == len(answer)-1 && (err == nil || errors.Is(err, syscall.ECONNRESET))
	})
}

func TestWhatTheServerSentBeforeAResetArrivesBeforeIt(t *testing.T) {
	target := service(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		sendThenReset(c)
	})
	besideLoopback(t, func(t *testing.T, dial dialer) bool {
		c := dial(t, target)
		defer c.Close()
		_, _ = c.Write([]byte{1})
		return receivedBeforeReset(t, c)
	})
}

func TestWhatTheClientSentBeforeAResetArrivesBeforeIt(t *testing.T) {
	received := make(chan bool, 1)
	target := service(t, func(c *net.TCPConn) {
		defer c.Close()
		received <- receivedBeforeReset(t, c)
	})
	besideLoopback(t, func(t *testing.T, dial dialer) bool {
		sendThenReset(dial(t, target))
		select {
		case all := <-received:
			return all
		case <-time.After(5 * time.Second):
			return false
		}
	})
}

func sendThenReset(c *net.TCPConn) {
	_, _ = c.Write(make([]byte, 50_000))
	_, _ = c.Write(make([]byte, 100))
	_ = c.SetLinger(0)
	_ = c.Close()
}

// receivedBeforeReset reads to the end, which is never a clean one.
func receivedBeforeReset(t *testing.T, c *net.TCPConn) bool {
	n, err := io.Copy(io.Discard, c)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after %d bytes the connection ended with %v, want a reset", n, err)
	}
	return n == 50_100
}

// One end does not read, so that nothing of the other is read either. When that is
// reset, the first is told, although what it has not read never drains.
func TestAResetIsSeenWhileTheOtherDirectionIsBlocked(t *testing.T) {
	ofTheServer := func(t *testing.T, l *link) {
		reset := make(chan struct{})
		c := through(t, l, service(t, func(c *net.TCPConn) {
			fill(c)
			<-reset
			_ = c.SetLinger(0)
			_ = c.Close()
		}))
		_, _ = io.ReadFull(c, make([]byte, 1))
		close(reset)
		wantTold(t, func() error { return awaitError(c) })
	}
	ofTheClient := func(t *testing.T, l *link) {
		told := make(chan error, 1)
		c := through(t, l, service(t, func(c *net.TCPConn) {
			defer c.Close()
			_, _ = c.Write([]byte{1})
			told <- awaitError(c)
		}))
		_, _ = io.ReadFull(c, make([]byte, 1))
		fill(c)
		_ = c.SetLinger(0)
		_ = c.Close()
		wantTold(t, func() error { return <-told })
	}
	for _, kind := range kinds {
		for name, test := range map[string]func(*testing.T, *link){"server": ofTheServer, "client": ofTheClient} {
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				test(t, startLink(t, startGuest(t, kind, tunnel.Config{}), tunnel.Config{}))
			})
		}
	}
}

// fill writes until nothing more is taken for a while.
func fill(c *net.TCPConn) {
	for {
		_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := c.Write(make([]byte, 1<<20)); err != nil {
			return
		}
	}
}

// wantTold waits for an error that await is told.
func wantTold(t *testing.T, await func() error) {
	t.Helper()
	told := make(chan error, 1)
	go func() { told <- await() }()
	select {
	case err := <-told:
		if err == nil {
			t.Fatal("told of no error")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("not told of the reset")
	}
}
