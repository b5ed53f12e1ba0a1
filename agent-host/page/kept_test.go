package page_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const shop = "3000.dev.localhost"

// raw is a service that does with each connection what it is told; n counts them from 1.
func raw(t *testing.T, serve func(n int, c net.Conn, requests *bufio.Reader)) (addr string, connections *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connections = new(atomic.Int32)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n := int(connections.Add(1))
			go func() {
				defer c.Close()
				serve(n, c, bufio.NewReader(c))
			}()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String(), connections
}

// request reads a request, and reports whether there was one.
func request(r *bufio.Reader) bool {
	req, err := http.ReadRequest(r)
	return err == nil && req.Body.Close() == nil
}

func answer(c net.Conn, body string) {
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func (s served) named(port uint16) string { return fmt.Sprintf("%s:%d", shop, port) }

// get asks the service by name.
func (s served) get(t *testing.T) (*http.Response, string) {
	t.Helper()
	return s.ask(t, http.MethodGet, s.named(s.port), "/", "")
}

func TestAConnectionToAServiceIsUsedAgain(t *testing.T) {
	addr, connections := raw(t, func(_ int, c net.Conn, requests *bufio.Reader) {
		for request(requests) {
			answer(c, "hello")
		}
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	c, in := s.dial(t, "")
	get := func(times int) {
		t.Helper()
		for range times {
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", s.named(s.port))
			if got := answered(t, in); got != "200 hello" {
				t.Fatalf("%q", got)
			}
		}
	}
	get(5)
	if n := connections.Load(); n != 1 {
		t.Errorf("five requests took %d connections", n)
	}
	// From here on the client is one of net/http's server. What has a body is asked on a connection of its own.
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 2\r\n\r\nhi", s.named(s.port))
	if got := answered(t, in); got != "200 hello" {
		t.Fatalf("%q", got)
	}
	get(5)
	if n := connections.Load(); n != 2 {
		t.Errorf("ten requests and one with a body took %d connections", n)
	}
}

// TestAConnectionToAServiceIsItsClientsAlone: what a service sends behind an answer a moment later looks like the answer
// to what is asked next.
func TestAConnectionToAServiceIsItsClientsAlone(t *testing.T) {
	addr, connections := raw(t, func(n int, c net.Conn, requests *bufio.Reader) {
		for behind := false; request(requests); behind = true {
			if behind {
				answer(c, "not asked for")
			}
			answer(c, fmt.Sprint("asked on ", n))
		}
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	for _, before := range []string{"", "HEAD"} { // without net/http's server, and with it
		began := int(connections.Load())
		for n := began + 1; n <= began+6; n++ {
			c, in := s.dial(t, "")
			if before != "" {
				fmt.Fprintf(c, "%s /nowhere HTTP/1.1\r\nHost: nobody\r\n\r\n", before)
				if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "421") {
					t.Fatalf("%q (%v)", line, err)
				}
				for line := ""; line != "\r\n"; {
					var err error
					if line, err = in.ReadString('\n'); err != nil {
						t.Fatal(err)
					}
				}
			}
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", s.named(s.port))
			if got, want := answered(t, in), fmt.Sprint("200 asked on ", n); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
	}
}

func TestAConnectionThatNoRequestComesForIsEnded(t *testing.T) {
	ended := make(chan struct{})
	addr, _ := raw(t, func(_ int, c net.Conn, requests *bufio.Reader) {
		for request(requests) {
			answer(c, "hello")
		}
		close(ended)
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	s.get(t)
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("it is kept without end")
	}
}

// A server may end a connection at any time between two requests.
func TestAServiceThatHasEndedAConnectionIsAskedOnAnother(t *testing.T) {
	addr, connections := raw(t, func(_ int, c net.Conn, requests *bufio.Reader) {
		if request(requests) {
			answer(c, "hello")
		}
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	c, in := s.dial(t, "")
	for n := range 5 {
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", s.named(s.port))
		if got := answered(t, in); got != "200 hello" {
			t.Fatalf("request %d: %q", n, got)
		}
	}
	if n := connections.Load(); n != 5 {
		t.Errorf("five requests took %d connections", n)
	}
}

func TestWhatAServiceSaysUnaskedIsNoAnswer(t *testing.T) {
	addr, _ := raw(t, func(n int, c net.Conn, requests *bufio.Reader) {
		for request(requests) {
			body := fmt.Sprintf("asked %d", n)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"+"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nunasked", len(body), body)
		}
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	c, in := s.dial(t, "")
	for n := range 3 {
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", s.named(s.port))
		if got := answered(t, in); got != fmt.Sprintf("200 asked %d", n+1) {
			t.Errorf("request %d: %q", n, got)
		}
	}
}

func TestAnAnswerThatIsCutIsNoWholeOne(t *testing.T) {
	addr, _ := raw(t, func(_ int, c net.Conn, requests *bufio.Reader) {
		if request(requests) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\ncut")
		}
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	s.await(t, isActive)
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", s.named(s.port))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return // nor does it begin
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("%q passes for the whole answer", body)
	}
}

func TestAnAnswerThatEndsWithItsConnectionArrives(t *testing.T) {
	addr, _ := raw(t, func(_ int, c net.Conn, requests *bufio.Reader) {
		if request(requests) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\nuntil the end")
		}
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	for range 2 {
		if _, body := s.get(t); body != "until the end" {
			t.Errorf("%q", body)
		}
	}
}

func TestAHeaderWithoutEndIsNoAnswer(t *testing.T) {
	addr, _ := raw(t, func(_ int, c net.Conn, requests *bufio.Reader) {
		if !request(requests) {
			return
		}
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\n")
		for line := "A: " + strings.Repeat("a", 1000) + "\r\n"; ; {
			if _, err := io.WriteString(c, line); err != nil {
				return
			}
		}
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	if res, _ := s.get(t); res.StatusCode != http.StatusBadGateway {
		t.Errorf("%s", res.Status)
	}
}

func TestAHintBeforeTheAnswerIsPassedOn(t *testing.T) {
	shopServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		fmt.Fprint(w, "the answer")
	}))
	defer shopServer.Close()
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: shopServer.Listener.Addr().String()})
	s.await(t, isActive)
	hinted := ""
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		hinted = fmt.Sprint(code, " ", h.Get("Link"))
		return nil
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = s.named(s.port)
	res, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "the answer" || hinted != "103 </style.css>; rel=preload" {
		t.Errorf("%q, %v after %q", body, err, hinted)
	}
}

func TestAClientThatGoesAwayEndsWhatItAskedFor(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	shopServer := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(ended)
	}))
	defer shopServer.Close()
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: shopServer.Listener.Addr().String()})
	s.await(t, isActive)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = s.named(s.port)
	go func() {
		<-began
		cancel()
	}()
	if res, err := client(t).Do(req); err == nil {
		_ = res.Body.Close()
		t.Fatalf("%s", res.Status)
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the service is still asked")
	}
}

// A service may leave a request's body unread, and take it for the next request.
func TestWhatAServiceLeavesOfARequestIsNoRequestOfAnotherClient(t *testing.T) {
	addr, _ := raw(t, func(_ int, c net.Conn, in *bufio.Reader) {
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			body := req.Method + " " + req.URL.Path // and that of the request is left
			req.Body = nil
			answer(c, body)
		}
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	for n := range 5 { // each of which would end the header that the one before has begun
		if res, text := s.ask(t, http.MethodPost, s.named(s.port), "/mine", "GET /evil HTTP/1.1\r\nHost: a\r\nX: "); text != "POST /mine" {
			t.Fatalf("request %d: %s, %q", n, res.Status, text)
		}
	}
}

func TestWhatAServiceDoesWithAnIdleConnectionIsSeenBeforeItIsUsed(t *testing.T) {
	for name, last := range map[string]string{
		"it ends it without a word":   "",
		"it says why it ends it":      "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
		"it answers what nobody asks": "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nunasked",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
			t.Run(name+", "+method, func(t *testing.T) {
				next, done := make(chan struct{}), make(chan struct{}, 1)
				defer close(next)
				addr, _ := raw(t, func(_ int, c net.Conn, in *bufio.Reader) {
					if !request(in) {
						return
					}
					answer(c, "hello")
					<-next
					fmt.Fprint(c, last)
					if last == "" {
						_ = c.Close()
					}
					done <- struct{}{}
					_, _ = in.ReadByte()
				})
				s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
				for n := range 4 {
					res, text := s.ask(t, method, s.named(s.port), "/", map[string]string{http.MethodPost: "abc", http.MethodPut: "abc"}[method])
					if res.StatusCode != http.StatusOK || text != "hello" {
						t.Fatalf("request %d: %s, %q", n, res.Status, text)
					}
					next <- struct{}{}
					<-done
				}
			})
		}
	}
}
