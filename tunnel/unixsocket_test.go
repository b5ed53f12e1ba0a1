package tunnel_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// socketService listens on a unix socket and hands each connection to serve.
func socketService(t *testing.T, serve func(c *net.UnixConn)) wire.Target {
	t.Helper()
	path := filepath.Join(t.TempDir(), "service.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return wire.UnixTarget(path)
}

// socketPair is a connection on a unix socket.
func socketPair(t *testing.T) (client, accepted *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "client.sock")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr)); err != nil {
		t.Fatal(err)
	}
	if accepted, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	return client, accepted
}

// throughSocket is through for a client on a unix socket.
func throughSocket(t *testing.T, l *link, target wire.Target) *net.UnixConn {
	t.Helper()
	client, accepted := socketPair(t)
	s, err := l.Open(t.Context(), target, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go relay.Relay(relay.Unix(accepted), s, new(relay.Counters), func(error) { close(done) })
	t.Cleanup(func() {
		_ = client.Close()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("a relay outlived its connection")
		}
	})
	_ = client.SetDeadline(time.Now().Add(20 * time.Second))
	return client
}

func TestUnixSocketsOnBothEndsCarryBytesAndHalfCloses(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		c := throughSocket(t, l, socketService(t, func(c *net.UnixConn) {
			defer c.Close()
			all, _ := io.ReadAll(c) // needs the client's EOF
			_, _ = c.Write(all)
		}))
		sent := randomBytes(8 << 20)
		go func() {
			_, _ = c.Write(sent)
			_ = c.CloseWrite()
		}()
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("%d of %d bytes came back: %v", len(got), len(sent), err)
		}
	})
}

func TestSocketsAndPortsMix(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		for name, c := range map[string]net.Conn{
			"port to socket": through(t, l, socketService(t, func(c *net.UnixConn) { defer c.Close(); _, _ = io.Copy(c, c) })),
			"socket to port": throughSocket(t, l, service(t, echo)),
		} {
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(name, err)
			}
			if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(name, err)
			}
			if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
				t.Fatalf("%s: %q, %v", name, got, err)
			}
		}
	})
}

func TestASocketThatClosesWithSomethingUnreadIsAResetForTheClient(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		for _, halfClosed := range []bool{false, true} {
			c := through(t, l, socketService(t, func(c *net.UnixConn) {
				if halfClosed {
					_ = c.CloseWrite()
				}
				_, _ = io.ReadFull(c, make([]byte, 1))
				_ = c.Close()
			}))
			if halfClosed {
				if got, err := io.ReadAll(c); err != nil || len(got) > 0 {
					t.Fatalf("%q, %v", got, err)
				}
			}
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if halfClosed {
				// Its EOF has been read; what is left to notice it by is writing.
				deadline := time.Now().Add(10 * time.Second)
				for err := error(nil); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE); _, err = c.Write([]byte("x")) {
					if time.Now().After(deadline) {
						t.Fatal("the client can write to nobody")
					}
					time.Sleep(time.Millisecond)
				}
				continue
			}
			wantReset(t, c)
		}
	})
}

func TestASocketClientThatGoesAwayIsTheEndForTheService(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		got := make(chan string, 1)
		c := throughSocket(t, l, service(t, func(c *net.TCPConn) {
			defer c.Close()
			all, err := io.ReadAll(c)
			if err != nil {
				t.Error(err)
			}
			got <- string(all)
		}))
		_, _ = c.Write([]byte("a line for the log"))
		_ = c.Close()
		if s := soon(t, got, "the service has read all"); s != "a line for the log" {
			t.Fatalf("%q arrived", s)
		}
	})
}

func TestASocketNobodyServesIsRefused(t *testing.T) {
	stale := socketService(t, func(*net.UnixConn) {})
	file := filepath.Join(t.TempDir(), "stale.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: file})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	eachKind(t, func(t *testing.T, l *link) {
		for _, path := range []string{file, filepath.Join(filepath.Dir(stale.Path), "none.sock")} {
			s, err := l.Open(t.Context(), wire.UnixTarget(path), nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Read(make([]byte, 1))
			if answer, ok := errors.AsType[*wire.AnswerError](err); !ok || answer.Status != wire.AnswerRefused || !strings.Contains(answer.Reason, path) {
				t.Errorf("%s: %v, want a refusal that names it", path, err)
			}
			s.Abort()
			wantReset(t, through(t, l, wire.UnixTarget(path)))
		}
	})
}

func TestASocketPathIsAbsoluteAndFits(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		for _, path := range []string{"", "relative.sock", "@abstract", "/a\x00b", "/" + strings.Repeat("x", wire.MaxSocketPath)} {
			if s, err := l.Open(t.Context(), wire.UnixTarget(path), nil); err == nil {
				s.Abort()
				t.Errorf("%q was taken for the path of a socket", path)
			}
		}
		longest := "/" + strings.Repeat("x", wire.MaxSocketPath-1)
		s, err := l.Open(t.Context(), wire.UnixTarget(longest), nil)
		if err != nil {
			t.Fatal(err)
		}
		s.Abort()
	})
}
