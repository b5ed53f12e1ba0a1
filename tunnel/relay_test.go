package tunnel_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

func TestBytesArriveBothWays(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		c := through(t, l, service(t, echo))
		for _, size := range []int{1, 64, 16 << 10, 16<<10 + 1, 1 << 20} {
			sent := randomBytes(size)
			go func() { _, _ = c.Write(sent) }()
			got := make([]byte, size)
			if _, err := io.ReadFull(c, got); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(sent, got) {
				t.Fatalf("%d bytes came back changed", size)
			}
		}
	})
}

func TestLargeTransferIsComplete(t *testing.T) {
	size := int64(64 << 20)
	if os.Getenv(overVsock) != "" {
		size = 8 << 20 // in an emulated machine
	}
	eachKind(t, func(t *testing.T, l *link) {
		sums := make(chan [32]byte, 1)
		c := through(t, l, service(t, func(c *net.TCPConn) {
			defer c.Close()
			h := sha256.New()
			_, _ = io.Copy(io.MultiWriter(h, c), c)
			sums <- [32]byte(h.Sum(nil))
		}))
		up, down := sha256.New(), sha256.New()
		go func() {
			src := rand.NewChaCha8([32]byte{1})
			_, _ = io.CopyN(io.MultiWriter(c, up), src, size)
			_ = c.CloseWrite()
		}()
		n, err := io.Copy(down, c)
		if err != nil || n != size {
			t.Fatalf("%d of %d bytes: %v", n, size, err)
		}
		server := soon(t, sums, "the service has read everything")
		if !bytes.Equal(server[:], up.Sum(nil)) || !bytes.Equal(server[:], down.Sum(nil)) {
			t.Fatal("bytes were changed on the way")
		}
	})
}

func TestHalfCloseReachesTheOtherEnd(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		c := through(t, l, service(t, func(c *net.TCPConn) {
			defer c.Close()
			all, _ := io.ReadAll(c) // needs the client's EOF
			_, _ = c.Write(append([]byte("got "), all...))
		}))
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err != nil || string(got) != "got hello" {
			t.Fatalf("%q, %v", got, err)
		}
	})
}

func TestServerMayCloseFirstAndStillRead(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		received := make(chan string, 1)
		c := through(t, l, service(t, func(c *net.TCPConn) {
			defer c.Close()
			_, _ = c.Write([]byte("bye"))
			_ = c.CloseWrite()
			all, _ := io.ReadAll(c)
			received <- string(all)
		}))
		if got, err := io.ReadAll(c); err != nil || string(got) != "bye" {
			t.Fatalf("%q, %v", got, err)
		}
		if _, err := c.Write([]byte("after")); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		if got := soon(t, received, "the service has read everything"); got != "after" {
			t.Fatalf("server read %q", got)
		}
	})
}

func TestGuestResetArrivesAsReset(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		c := through(t, l, service(t, func(c *net.TCPConn) {
			_, _ = io.ReadFull(c, make([]byte, 1))
			_ = c.SetLinger(0)
			_ = c.Close()
		}))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		wantReset(t, c)
	})
}

func TestClientResetArrivesAsReset(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		ended := make(chan error, 1)
		c := through(t, l, service(t, func(c *net.TCPConn) {
			defer c.Close()
			_, _ = c.Write([]byte("hello"))
			_, err := io.Copy(io.Discard, c)
			ended <- err
		}))
		// One that is reset before it is through is never made in the guest.
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		_ = c.SetLinger(0)
		_ = c.Close()
		if err := soon(t, ended, "the service is told of the reset"); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("server's read ended with %v, want a reset", err)
		}
	})
}

func TestResetAfterHalfCloseIsNoticedAtOnce(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		eof, ended := make(chan struct{}), make(chan error, 1)
		c := through(t, l, service(t, func(c *net.TCPConn) {
			defer c.Close()
			_, _ = io.Copy(io.Discard, c)
			close(eof)
			// The server writes nothing: only the tunnel can tell it.
			ended <- awaitError(c)
		}))
		_ = c.CloseWrite()
		soon(t, eof, "the service is told of the end")
		_ = c.SetLinger(0)
		_ = c.Close()
		if err := soon(t, ended, "the service is told of the reset"); err == nil {
			t.Fatal("the server was not told of the reset")
		}
	})
}

func TestRefusalIsAReset(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		s, err := l.Open(t.Context(), refused(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var answer *wire.AnswerError
		if _, err := s.Read(make([]byte, 1)); !errors.As(err, &answer) || answer.Status != wire.AnswerRefused {
			t.Fatalf("read: %v, want the answer refused", err)
		}
		wantReset(t, through(t, l, refused(t)))
	})
}

func TestOnlyAddressesOfTheGuestAreDialled(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		target := wire.Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80")}}
		s, err := l.Open(t.Context(), target, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var answer *wire.AnswerError
		if _, err := s.Read(make([]byte, 1)); !errors.As(err, &answer) || answer.Status != wire.AnswerDenied {
			t.Fatalf("read: %v, want the answer denied", err)
		}
	})
}

func TestEarlyBytesTravelAlong(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		s, err := l.Open(t.Context(), service(t, echo), []byte("early"))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, err := s.Write([]byte(" bird")); err != nil {
			t.Fatal(err)
		}
		_ = s.CloseWrite()
		got, err := io.ReadAll(s)
		if err != nil || string(got) != "early bird" {
			t.Fatalf("%q, %v", got, err)
		}
	})
}

func TestCutLinkIsAReset(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			g := startGuest(t, kind, tunnel.Config{})
			l := startLink(t, g, tunnel.Config{})
			c := through(t, l, service(t, echo))
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			g.stop()
			wantReset(t, c)
		})
	}
}

func wantReset(t *testing.T, c *net.TCPConn) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the connection ended with %v, want a reset", err)
	}
}

// refused is a target where nothing listens.
func refused(t *testing.T) wire.Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return wire.Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort(l.Addr().String())}}
}

// awaitError waits until a connection whose peer has closed is reset.
func awaitError(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var soErr error
	err = raw.Read(func(fd uintptr) bool {
		n, _ := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR)
		if n != 0 {
			soErr = syscall.Errno(n)
		}
		return n != 0
	})
	return errors.Join(err, soErr)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

func TestAStalledReaderHoldsUpNobodyElse(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		flood := service(t, func(c *net.TCPConn) {
			defer c.Close()
			for buf := make([]byte, 64<<10); ; {
				if _, err := c.Write(buf); err != nil {
					return
				}
			}
		})
		target := service(t, echo)
		for range 3 {
			stalled := through(t, l, flood)
			if _, err := io.ReadFull(stalled, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			// From here on it reads nothing, and every buffer fills.
			c := through(t, l, target)
			sent := randomBytes(4 << 20)
			go func() { _, _ = c.Write(sent) }()
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("beside a stalled connection: %v", err)
			}
		}
	})
}

func TestACutLinkFreesWhatIsStalled(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			g := startGuest(t, kind, tunnel.Config{})
			l := startLink(t, g, tunnel.Config{})
			idle := make(chan struct{})
			defer close(idle)
			c := through(t, l, service(t, func(c *net.TCPConn) {
				defer c.Close()
				<-idle // reads nothing
			}))
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			for {
				if _, err := c.Write(make([]byte, 1<<20)); err != nil {
					break // everything between here and there is full
				}
			}
			stopped := make(chan struct{})
			go func() { g.stop(); close(stopped) }()
			select {
			case <-stopped:
			case <-time.After(10 * time.Second):
				t.Fatal("the guest agent does not end while a connection is stalled")
			}
			wantReset(t, c)
		})
	}
}
