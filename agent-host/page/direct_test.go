package page_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// heads is a service that keeps the heads of what it is asked, and answers with their targets. After one with a body it
// ends the connection.
type heads struct {
	mu  sync.Mutex
	all []string
}

func (h *heads) start(t *testing.T) (addr string) {
	addr, _ = raw(t, func(_ int, c net.Conn, in *bufio.Reader) {
		for {
			head := ""
			for !strings.HasSuffix(head, "\r\n\r\n") {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				head += line
			}
			h.mu.Lock()
			h.all = append(h.all, head)
			h.mu.Unlock()
			req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
			if err != nil {
				t.Errorf("%q: %v", head, err)
				return
			}
			answer(c, req.RequestURI)
			if req.ContentLength != 0 { // what follows is no head
				return
			}
		}
	})
	return addr
}

func (h *heads) seen() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all
}

// answered reads an answer, whose status and body it is.
func answered(t *testing.T, in *bufio.Reader) string {
	t.Helper()
	res, err := http.ReadResponse(in, nil)
	for err == nil && res.StatusCode < 200 {
		res, err = http.ReadResponse(in, nil)
	}
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if errors.Is(err, syscall.ECONNRESET) {
		return syscall.ECONNRESET.Error()
	}
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", res.StatusCode, body)
}

func TestAPlainRequestAndItsAnswerPassAsTheyAre(t *testing.T) {
	var got string
	const sent = "HTTP/1.1 200 Quite fine\r\nx-a: 1\r\nContent-Length: 5\r\nX-A:  2\r\n"
	addr, _ := raw(t, func(_ int, c net.Conn, in *bufio.Reader) {
		for !strings.HasSuffix(got, "\r\n\r\n") {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			got += line
		}
		fmt.Fprint(c, sent+"Connection: Keep-Alive\r\nKeep-Alive: timeout=5\r\n\r\nhello")
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	const line = "GET //a/../%2F?q=%zz;\"1 HTTP/1.1\r\n"
	host := s.named(s.port)
	c, in := s.dial(t, "%s", line+"x-b: 1\r\nhost: "+host+"\r\nConnection: keep-alive\r\nKeep-Alive: 300\r\nX-B:2 \r\nCookie: a=b\r\nCookie: c=d\r\n\r\n")
	all := make([]byte, len(sent+"\r\nhello"))
	if _, err := io.ReadFull(in, all); err != nil || string(all) != sent+"\r\nhello" {
		t.Errorf("the client sees %q, %v", all, err)
	}
	if want := line + "x-b: 1\r\nhost: " + host + "\r\nX-B:2 \r\nCookie: a=b\r\nCookie: c=d\r\n\r\n"; got != want {
		t.Errorf("the service sees %q, want %q", got, want)
	}
	_ = c.CloseWrite()
	if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
		t.Errorf("then %q, %v", rest, err)
	}
}

func TestEachRequestOfAConnectionIsForItsOwnHost(t *testing.T) {
	one, two := new(heads), new(heads)
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: one.start(t)}, service{vm: "other", port: 3000, addr: two.start(t)})
	c, in := s.dial(t, "")
	for _, step := range []struct{ request, host, want string }{
		{"GET /1", "3000.dev.localhost", "200 /1"}, {"GET /2", "3000.other.localhost", "200 /2"}, {"GET /3", "3000.DEV.localhost", "200 /3"},
		{"GET /4", "3000.other.localhost", "200 /4"}, {"GET /5", "3000.dev.localhost.evil.example", "421 nothing of this name is here\n"}, {"GET /6", "3000.dev.localhost", "200 /6"},
		{"GET /v1/status", "localhost", "401 this needs a session; get one with: rum-host-agent dashboard\n"}, {"GET /7", "3000.other.localhost", "200 /7"},
		{"GET /8", "evil.example", "421 nothing of this name is here\n"},
	} {
		fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: %s\r\n\r\n", step.request, s.host(step.host))
		if got := answered(t, in); got != step.want {
			t.Errorf("%s of %s: %q, want %q", step.request, step.host, got, step.want)
		}
	}
	for of, h := range map[string]*heads{"/1 /3 /6": one, "/2 /4 /7": two} {
		var targets []string
		for _, head := range h.seen() {
			targets = append(targets, strings.Fields(head)[1])
		}
		if got := strings.Join(targets, " "); got != of {
			t.Errorf("a service is asked for %s, want %s", got, of)
		}
	}
}

// The Kelvin sign has k as its lower case.
func TestAHostInOtherLettersThanNamesHaveReachesNoService(t *testing.T) {
	asked := new(heads)
	s := serve(t, nil, service{vm: "kiwi", port: 3000, addr: asked.start(t)})
	for _, host := range []string{"3000.\u212aiwi.localhost", "3000.k\u0130wi.localhost", "3000.kiwi\x80.localhost"} {
		c, in := s.dial(t, "")
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", s.host(host))
		if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 400 ") {
			t.Errorf("%q: %q (%v)", host, line, err)
		}
	}
	if got := asked.seen(); len(got) > 0 {
		t.Errorf("the service is asked: %q", got)
	}
}

// Each request comes behind a plain one, and hides another where its end can be taken to be elsewhere. A service is asked
// what net/http reads, in words that can be read in one way.
func TestNoRequestIsSmuggledToAService(t *testing.T) {
	for name, hostile := range map[string]string{
		"a length and chunks":       "GET /own HTTP/1.1\r\nHost: %[1]s\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: %[1]s\r\n\r\n",
		"chunks with a space":       "GET /own HTTP/1.1\r\nHost: %[1]s\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: %[1]s\r\n\r\n",
		"chunks of another kind":    "GET /own HTTP/1.1\r\nHost: %[1]s\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: %[1]s\r\n\r\n",
		"chunks twice":              "GET /own HTTP/1.1\r\nHost: %[1]s\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: %[1]s\r\n\r\n",
		"a length":                  "GET /own HTTP/1.1\r\nHost: %[1]s\r\nContent-Length: 41\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\nX: 0123456789",
		"two lengths":               "GET /own HTTP/1.1\r\nHost: %[1]s\r\nContent-Length: 0\r\nContent-Length: 41\r\n\r\nGET /evil HTTP/1.1\r\nHost: %[1]s\r\n\r\n",
		"a length that is none":     "GET /own HTTP/1.1\r\nHost: %[1]s\r\nContent-Length: +0\r\n\r\nGET /evil HTTP/1.1\r\nHost: %[1]s\r\n\r\n",
		"a length with a tab":       "GET /own HTTP/1.1\r\nHost: %[1]s\r\nContent-Length\t: 41\r\n\r\nGET /evil HTTP/1.1\r\nHost: %[1]s\r\n\r\n",
		"a null":                    "GET /own HTTP/1.1\r\nHost: %[1]s\r\nA: \x00\r\n\r\nGET /evil HTTP/1.1\r\nHost: %[1]s\r\n\r\n",
		"a CR in a value":           "GET /own HTTP/1.1\r\nHost: %[1]s\r\nA: b\rGET /evil HTTP/1.1\r\n\r\n",
		"two hosts":                 "GET /own HTTP/1.1\r\nHost: %[1]s\r\nHost: evil.example\r\n\r\n",
		"another host in its line":  "GET http://evil.example/evil HTTP/1.1\r\nHost: %[1]s\r\n\r\n",
		"a space before a field":    "GET /own HTTP/1.1\r\n Host: evil.example\r\nHost: %[1]s\r\n\r\n",
		"a name that is not one":    "GET /own HTTP/1.1\r\nHost: %[1]s\r\nA(b): c\r\n\r\n",
		"a line that is no field":   "GET /own HTTP/1.1\r\nHost: %[1]s\r\nGET /evil HTTP/1.1\r\n\r\n",
		"spaces in its line":        "GET /own HTTP/1.1 HTTP/1.1\r\nHost: %[1]s\r\n\r\n",
		"a protocol of another one": "GET /own HTTP/1.1\r\nHost: %[1]s\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
		"a connection that names":   "GET /own HTTP/1.1\r\nHost: %[1]s\r\nConnection: Cookie, Host\r\nCookie: a=b\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			h := new(heads)
			s := serve(t, nil, service{vm: "dev", port: 3000, addr: h.start(t)})
			c, in := s.dial(t, "GET /plain HTTP/1.1\r\nHost: %s\r\n\r\n", s.named(s.port))
			if got := answered(t, in); got != "200 /plain" {
				t.Fatal(got)
			}
			hostile = fmt.Sprintf(hostile, s.named(s.port))
			fmt.Fprint(c, hostile)
			_ = c.CloseWrite()
			_, _ = io.Copy(io.Discard, in)
			read := bufio.NewReader(strings.NewReader(hostile))
			for _, head := range h.seen()[1:] {
				req, err := http.ReadRequest(read)
				if err != nil {
					t.Fatalf("the service is asked %q: %v", head, err)
				}
				_, _ = io.Copy(io.Discard, req.Body)
				if lower := strings.ToLower(head); !strings.HasPrefix(head, "GET "+req.RequestURI+" HTTP/1.1\r\n") || strings.ContainsAny(strings.ReplaceAll(head, "\r\n", ""), "\r\n\x00") ||
					strings.Count(lower, "\r\nhost: "+s.named(s.port)+"\r\n") != 1 || strings.Count(lower, "host") != 2 || strings.Contains(lower, "content-length") && strings.Contains(lower, "transfer-encoding") {
					t.Errorf("the service is asked %q", head)
				}
			}
		})
	}
}

// A folded line, and one that ends with LF alone, are read as net/http reads them, and not passed on as they are.
func TestWhatIsReadInTwoWaysReachesAServiceInOne(t *testing.T) {
	for name, fields := range map[string]string{
		"a folded line": "A: b\r\n c\r\n", "an LF": "A: b\nC: d\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			h := new(heads)
			s := serve(t, nil, service{vm: "dev", port: 3000, addr: h.start(t)})
			_, in := s.dial(t, "GET /own HTTP/1.1\r\nHost: %s\r\n%s\r\n", s.named(s.port), fields)
			if got := answered(t, in); got != "200 /own" {
				t.Fatal(got)
			}
			for line := range strings.Lines(h.seen()[0]) {
				if !strings.HasSuffix(line, "\r\n") || line[0] == ' ' {
					t.Errorf("the service is asked %q", h.seen())
				}
			}
		})
	}
}

func TestAnAnswerThatIsNotPlainPassesAndIsAskedForOnce(t *testing.T) {
	const next = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext"
	big, cut := strings.Repeat("0123456789", 3000), syscall.ECONNRESET.Error()
	for name, a := range map[string]struct{ parts, want string }{
		"without a length":       {"HTTP/1.1 200 OK\r\n\r\nhello", "200 hello"},
		"of HTTP/1.0":            {"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "200 hello"},
		"that closes":            {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", "200 hello"},
		"in chunks":              {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "200 hello"},
		"in chunks with a word":  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n", "200 hello"},
		"with trailers":          {"HTTP/1.1 200 OK\r\nTrailer: A\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n", "200 hello"},
		"in chunks that are bad": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX", cut},
		"with two ends":          {"HTTP/1.1 200 OK\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "200 hello"},
		"with two lengths":       {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "502 "},
		"with a folded line":     {"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 5\r\n\r\nhello", "200 hello"},
		"that is large":          {fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(big), big), "200 " + big},
		"with a large head":      {fmt.Sprintf("HTTP/1.1 200 OK\r\nA: %s\r\nContent-Length: 5\r\n\r\nhello", big), "200 hello"},
		"in pieces":              {"HTTP/1.1 200 OK\r\nContent-Le|ngth: 5\r\n\r\nhe|llo", "200 hello"},
		"with a hint before it":  {"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "200 hello"},
		"of nothing":             {"HTTP/1.1 204 No Content\r\n\r\n", "204 "},
		"of nothing new":         {"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "304 "},
		"that is none":           {"SSH-2.0-OpenSSH_9.2p1\r\n\r\n", "502 "},
		"that nobody gives":      {"", "502 "},
		"to change protocols":    {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\n", "502 "},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var asked []string
			addr, _ := raw(t, func(_ int, c net.Conn, in *bufio.Reader) {
				for {
					req, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					mu.Lock()
					asked = append(asked, req.URL.Path)
					mu.Unlock()
					if req.URL.Path == "/next" {
						fmt.Fprint(c, next)
						continue
					}
					for i, part := range strings.Split(a.parts, "|") {
						if i > 0 {
							time.Sleep(time.Millisecond) // for each to come by itself, which is not needed
						}
						fmt.Fprint(c, part)
					}
					return
				}
			})
			s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
			c, in := s.dial(t, "GET /next HTTP/1.1\r\nHost: %[1]s\r\n\r\n", s.named(s.port))
			if got := answered(t, in); got != "200 next" {
				t.Fatal(got)
			}
			fmt.Fprintf(c, "GET /own HTTP/1.1\r\nHost: %s\r\n\r\n", s.named(s.port))
			if got := answered(t, in); got != a.want && (a.want != "502 " || !strings.HasPrefix(got, a.want)) {
				t.Errorf("%.100q, want %.100q", got, a.want)
			}
			if a.want == cut {
				return
			}
			fmt.Fprintf(c, "GET /next HTTP/1.1\r\nHost: %s\r\n\r\n", s.named(s.port))
			if got := answered(t, in); got != "200 next" {
				t.Errorf("then %q", got)
			}
			mu.Lock()
			defer mu.Unlock()
			// One that ends its connection without an answer is asked on another.
			if n := strings.Count(strings.Join(asked, ""), "/own"); n != 1 && a.want != "502 " {
				t.Errorf("it is asked %d times", n)
			}
		})
	}
}

// The service is not asked again by whoever waits longer for it.
func TestAServiceThatTakesItsTimeIsAskedOnce(t *testing.T) {
	next := make(chan struct{})
	addr, connections := raw(t, func(_ int, c net.Conn, in *bufio.Reader) {
		for request(in) {
			<-next
			answer(c, "late")
		}
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	c, in := s.dial(t, "")
	for n := range 3 {
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", s.named(s.port))
		time.Sleep(200 * time.Millisecond) // it is late, by what is taken for that; if it is not, nothing fails
		next <- struct{}{}
		if got := answered(t, in); got != "200 late" {
			t.Fatalf("request %d: %q", n, got)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("three requests took %d connections", n)
	}
}

// The first request is passed on to a service that nobody has it from when the answer is there.
func TestAnAnswerThatIsTooLateForARuleIsNotThatToTheNextRequest(t *testing.T) {
	var gone atomic.Bool
	next := make(chan struct{})
	addr, _ := raw(t, func(n int, c net.Conn, in *bufio.Reader) {
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if n == 1 {
				gone.Store(true)
				<-next
			}
			answer(c, req.RequestURI)
		}
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr, gone: gone.Load})
	c, in := s.dial(t, "GET /1 HTTP/1.1\r\nHost: %s\r\n\r\n", s.named(s.port))
	if got := answered(t, in); !strings.HasPrefix(got, "404 ") {
		t.Errorf("%q", got)
	}
	gone.Store(false)
	close(next)
	fmt.Fprintf(c, "GET /2 HTTP/1.1\r\nHost: %s\r\n\r\n", s.named(s.port))
	if got := answered(t, in); got != "200 /2" {
		t.Errorf("%q", got)
	}
}

func TestAHeadMayComeInPieces(t *testing.T) {
	h := new(heads)
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: h.start(t)})
	c, in := s.dial(t, "")
	for n := range 3 {
		for _, part := range []string{"G", "ET / HTTP/1.1\r\nHo", "st: " + s.named(s.port) + "\r", "\n\r", "\n"} {
			fmt.Fprint(c, part)
			time.Sleep(time.Millisecond)
		}
		if got := answered(t, in); got != "200 /" {
			t.Fatalf("request %d: %q", n, got)
		}
	}
	for n, head := range h.seen() {
		if !strings.HasPrefix(head, "GET / HTTP/1.1\r\n") {
			t.Errorf("request %d is %q", n, head)
		}
	}
}

func TestAHeadThatDoesNotEndIsNotWaitedFor(t *testing.T) {
	h := new(heads)
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: h.start(t)})
	t.Run("group", func(t *testing.T) {
		for name, before := range map[string]int{"the first": 0, "the second": 1} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c, in := s.dial(t, "")
				for range before {
					fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", s.named(s.port))
					if got := answered(t, in); got != "200 /" {
						t.Fatal(got)
					}
				}
				fmt.Fprint(c, "GET / HTTP/1.1\r\nHost:")
				if _, err := io.Copy(io.Discard, in); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

func TestTheHeadOfARequestHasABound(t *testing.T) {
	h := new(heads)
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: h.start(t)})
	for size, want := range map[int]string{4 << 10: "200 /", 8 << 10: "200 /", 60 << 10: "200 /", 80 << 10: "431 431 Request Header Fields Too Large"} {
		_, in := s.dial(t, "GET / HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\n\r\n", s.named(s.port), strings.Repeat("a", size))
		if got := answered(t, in); got != want {
			t.Errorf("%d: %q", size, got)
		}
	}
}

func TestAClientIsToldWhoseHeaderIsTooLarge(t *testing.T) {
	addr, _ := raw(t, func(_ int, c net.Conn, in *bufio.Reader) {
		if request(in) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n")
			for range 1100 {
				fmt.Fprint(c, "A: "+strings.Repeat("a", 1000)+"\r\n")
			}
			answer(c, "hello")
		}
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	for method, want := range map[string]string{ // of what Go's client sends it says so itself
		http.MethodGet: "the answer of 3000.dev cannot be passed on: its header is larger than 1 MiB\n", http.MethodPost: "server response headers exceeded 1048576 bytes",
	} {
		if res, text := s.ask(t, method, s.named(s.port), "/", ""); res.StatusCode != http.StatusBadGateway || !strings.Contains(text, "3000.dev") || !strings.Contains(text, want) {
			t.Errorf("%s: %d %q", method, res.StatusCode, text)
		}
	}
}
