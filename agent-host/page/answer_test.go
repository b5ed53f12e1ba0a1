package page_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dial sends a request by name, as it is.
func (s served) dial(t *testing.T, format string, args ...any) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	s.await(t, isActive)
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, format, args...)
	return c.(*net.TCPConn), bufio.NewReader(c)
}

// reset closes a connection so that the other end sees ECONNRESET.
func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// An answer to HTTP/1.0 has no other end than that of its connection.
func TestAnAnswerThatIsCutIsReset(t *testing.T) {
	for name, a := range map[string]struct {
		begin string
		cut   func(net.Conn)
	}{
		"ends within a chunk":    {"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", func(c net.Conn) { fmt.Fprint(c, "5\r\nhe") }},
		"ends before its length": {"Content-Length: 10\r\n\r\nhello", func(net.Conn) {}},
		"is reset":               {"\r\nhello", reset},
	} {
		for _, line := range []string{"GET / HTTP/1.0", "GET / HTTP/1.1", "DELETE / HTTP/1.0"} {
			t.Run(name+", "+line, func(t *testing.T) {
				arrived := make(chan struct{})
				addr, _ := raw(t, func(_ int, c net.Conn, requests *bufio.Reader) {
					if request(requests) {
						fmt.Fprint(c, "HTTP/1.1 200 OK\r\n", a.begin)
						<-arrived
						a.cut(c)
					}
				})
				s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
				_, in := s.dial(t, "%s\r\nHost: %s\r\n\r\n", line, s.named(s.port))
				for text := ""; !strings.Contains(text, "hello"); {
					b, err := in.ReadByte()
					if err != nil {
						close(arrived)
						t.Fatalf("%v after %q", err, text)
					}
					text += string(b)
				}
				close(arrived)
				if rest, err := io.ReadAll(in); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("it ends with %q and %v", rest, err)
				}
			})
		}
	}
}

// upgrade asks for another protocol, and sends something together with that.
func (s served) upgrade(t *testing.T, early string) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	c, in := s.dial(t, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n%s", s.named(s.port), early)
	if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%+v, %v", res, err)
	}
	return c, in
}

// upgrading is a service that does with a connection what it is told once that has another protocol.
func upgrading(t *testing.T, serve func(c net.Conn, in *bufio.Reader)) (addr string) {
	addr, _ = raw(t, func(_ int, c net.Conn, in *bufio.Reader) {
		if request(in) {
			fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			serve(c, in)
		}
	})
	return addr
}

func TestAnUpgradedConnectionThatTheServiceResetsIsReset(t *testing.T) {
	arrived := make(chan struct{})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: upgrading(t, func(c net.Conn, _ *bufio.Reader) {
		fmt.Fprint(c, "hello")
		<-arrived
		reset(c)
	})})
	_, in := s.upgrade(t, "")
	if _, err := io.ReadFull(in, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	close(arrived)
	if rest, err := io.ReadAll(in); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("it ends with %q and %v", rest, err)
	}
}

func TestAnUpgradedConnectionThatTheClientResetsIsReset(t *testing.T) {
	ended := make(chan error, 1)
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: upgrading(t, func(_ net.Conn, in *bufio.Reader) {
		_, err := io.ReadFull(in, make([]byte, 5))
		if err == nil {
			ended <- nil
			_, err = io.ReadAll(in)
		}
		ended <- err
	})})
	c, _ := s.upgrade(t, "")
	fmt.Fprint(c, "hello")
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	reset(c)
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("it ends with %v", err)
	}
}

func TestEitherEndOfAnUpgradedConnectionMayEndFirst(t *testing.T) {
	t.Run("the client", func(t *testing.T) {
		s := serve(t, nil, service{vm: "dev", port: 3000, addr: upgrading(t, func(c net.Conn, in *bufio.Reader) {
			all, _ := io.ReadAll(in)
			fmt.Fprintf(c, "all of %q", all)
		})})
		c, in := s.upgrade(t, "")
		fmt.Fprint(c, "hello")
		_ = c.CloseWrite()
		if text, err := io.ReadAll(in); err != nil || string(text) != `all of "hello"` {
			t.Errorf("%q, %v", text, err)
		}
	})
	t.Run("the service", func(t *testing.T) {
		got := make(chan string, 1)
		s := serve(t, nil, service{vm: "dev", port: 3000, addr: upgrading(t, func(c net.Conn, in *bufio.Reader) {
			_ = c.(*net.TCPConn).CloseWrite()
			all, err := io.ReadAll(in)
			got <- fmt.Sprintf("%q, %v", all, err)
		})})
		c, in := s.upgrade(t, "")
		if text, err := io.ReadAll(in); err != nil || len(text) != 0 {
			t.Errorf("%q, %v", text, err)
		}
		fmt.Fprint(c, "hello")
		_ = c.CloseWrite()
		if text := <-got; text != `"hello", <nil>` {
			t.Error(text)
		}
	})
}

func TestWhatComesTogetherWithAnUpgradeReachesTheService(t *testing.T) {
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: upgrading(t, func(c net.Conn, in *bufio.Reader) { _, _ = io.Copy(c, in) })})
	c, in := s.upgrade(t, "early, ")
	fmt.Fprint(c, "late")
	got := make([]byte, len("early, late"))
	if n, err := io.ReadFull(in, got); err != nil || string(got) != "early, late" {
		t.Errorf("%q, %v", got[:n], err)
	}
}

func TestAnAnswerArrivesAsFarAsTheServiceHasSentIt(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		t.Run(method, func(t *testing.T) {
			next := make(chan struct{})
			addr, _ := raw(t, func(_ int, c net.Conn, requests *bufio.Reader) {
				if !request(requests) {
					return
				}
				for _, part := range []string{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "first", "whole"} {
					fmt.Fprint(c, part)
					<-next
				}
			})
			s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
			_, in := s.dial(t, "%s / HTTP/1.1\r\nHost: %s\r\n\r\n", method, s.named(s.port))
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			for _, want := range []string{"first", "whole"} {
				next <- struct{}{}
				got := make([]byte, 5)
				if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != want {
					t.Errorf("%q, %v, want %q", got, err, want)
				}
			}
			close(next)
		})
	}
}

func TestAnAnswerWithoutATypeIsGivenNone(t *testing.T) {
	addr, _ := raw(t, func(_ int, c net.Conn, requests *bufio.Reader) {
		for request(requests) {
			fmt.Fprint(c, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
			answer(c, "<html>")
		}
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		if res, text := s.ask(t, method, s.named(s.port), "/", ""); text != "<html>" || res.Header["Content-Type"] != nil {
			t.Errorf("%s: %q with %v", method, text, res.Header)
		}
	}
}

func TestAClientThatSendsNoMoreGetsNoAnswerThatTheServiceHasNotGiven(t *testing.T) {
	asked := make(chan struct{})
	addr, _ := raw(t, func(_ int, _ net.Conn, requests *bufio.Reader) {
		if request(requests) {
			close(asked)
			_, _ = requests.ReadByte() // until it is given up
		}
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	c, in := s.dial(t, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", s.named(s.port))
	<-asked
	_ = c.CloseWrite()
	if text, err := io.ReadAll(in); len(text) != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%q, %v", text, err)
	}
}

func TestOptionsOfTheServerItselfAreAskedByHostToo(t *testing.T) {
	addr, _ := raw(t, func(_ int, c net.Conn, requests *bufio.Reader) {
		line, _ := requests.ReadString('\n')
		answer(c, line)
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	for host, want := range map[string]string{"evil.example": "421 nothing of this name is here\n", s.named(s.port): "200 OPTIONS * HTTP/1.1\r\n"} {
		_, in := s.dial(t, "OPTIONS * HTTP/1.1\r\nHost: %s\r\n\r\n", host)
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if got := fmt.Sprintf("%d %s", res.StatusCode, text); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", host, got, err, want)
		}
	}
}

// Whether a client that only asks has gone, or waits, is for the service to judge.
func TestAClientThatSendsNoMoreGetsTheAnswer(t *testing.T) {
	for name, text := range map[string]string{
		"GET":    "GET / HTTP/1.1\r\nHost: %[1]s\r\nConnection: close\r\n\r\n",
		"POST":   "POST / HTTP/1.1\r\nHost: %[1]s\r\nContent-Length: 5\r\n\r\nhello",
		"DELETE": "DELETE / HTTP/1.0\r\nHost: %[1]s\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			addr, _ := raw(t, func(_ int, c net.Conn, in *bufio.Reader) {
				if !request(in) {
					return
				}
				if name == "GET" {
					if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
						t.Errorf("the service sees %q, %v", rest, err)
					}
				}
				answer(c, "the answer")
			})
			s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
			c, in := s.dial(t, text, s.named(s.port))
			_ = c.CloseWrite()
			all, err := io.ReadAll(in)
			if !strings.HasSuffix(string(all), "the answer") || err != nil {
				t.Errorf("%q, %v", all, err)
			}
		})
	}
}

func TestAClientThatSendsNoMoreGetsTheAnswersToAllItHasAsked(t *testing.T) {
	addr, _ := raw(t, func(_ int, c net.Conn, requests *bufio.Reader) {
		for request(requests) {
			answer(c, "hello")
		}
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	const n = 100
	c, in := s.dial(t, "%s", strings.Repeat(fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\n\r\n", s.named(s.port)), n))
	_ = c.CloseWrite()
	if all, err := io.ReadAll(in); strings.Count(string(all), "hello") != n || err != nil {
		t.Errorf("%d answers, %v", strings.Count(string(all), "hello"), err)
	}
}
