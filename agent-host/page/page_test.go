package page_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rum-vm/rum-agent/agent-host/page"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

func TestMain(m *testing.M) {
	ownnet.Enter()
	goleak.VerifyTestMain(m)
}

// served is a page that is served.
type served struct {
	*page.Page
	addr string
	port uint16
}

// service is a port of a VM.
type service struct {
	vm, label string
	port      uint16
	addr      string
	gone      func() bool // it is not carried for now; nil is never
}

// serve serves a page for VMs with those services until the test ends.
func serve(t *testing.T, listen func(netip.AddrPort) (net.Listener, error), services ...service) served {
	t.Helper()
	var vms []status.VM
	for _, s := range services {
		i := slices.IndexFunc(vms, func(vm status.VM) bool { return vm.Name == s.vm })
		if i < 0 {
			i = len(vms)
			vms = append(vms, status.VM{Name: s.vm})
		}
		vms[i].Forwards = append(vms[i].Forwards, status.Forward{Proto: "tcp", Port: s.port, Label: s.label, State: status.Active})
	}
	port := ownnet.FreePort(t)
	if listen == nil {
		listen = func(a netip.AddrPort) (net.Listener, error) { return net.Listen("tcp", a.String()) }
	}
	addresses, err := page.ParseAddresses(fmt.Sprintf("localhost:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	p := page.New(page.Config{
		Addresses: addresses, Listen: listen, Log: slog.New(slog.DiscardHandler),
		API: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "the API at ", r.URL.Path) }),
		Names: func() (all []string) {
			for _, vm := range vms {
				all = append(all, vm.Name)
			}
			return all
		},
		VMs: func(q status.Query) iter.Seq[status.VM] {
			return func(yield func(status.VM) bool) {
				for _, vm := range vms {
					vm.Forwards = slices.Clone(vm.Forwards)
					if (q.VM == "" || q.VM == vm.Name) && !yield(vm) {
						return
					}
				}
			}
		},
		Carried: func(vm string, _, _ netip.AddrPort, meant func(uint16, string) bool) (string, func(context.Context) (net.Conn, error)) {
			for _, s := range services {
				if s.vm == vm && meant(s.port, s.label) && (s.gone == nil || !s.gone()) {
					return fmt.Sprint(vm, s.port), func(ctx context.Context) (net.Conn, error) {
						return new(net.Dialer).DialContext(ctx, "tcp", s.addr)
					}
				}
			}
			return "", nil
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return served{p, addresses[0].String(), port}
}

func (s served) await(t *testing.T, ok func(*status.Page) bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(s.Status()); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the page is %+v", s.Status())
		}
	}
}

func isActive(st *status.Page) bool { return st.State == status.Active }

// client is one that does not follow where a server leads it, and leaves nothing open.
func client(t *testing.T) *http.Client {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// ask sends a request to the page, whatever Host it is for.
func (s served) ask(t *testing.T, method, host, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	s.await(t, isActive)
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := client(t).Do(req)
	if err != nil {
		t.Fatalf("%s %s%s: %v", method, host, path, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(text)
}

func (s served) host(name string) string { return fmt.Sprintf("%s:%d", name, s.port) }

// session opens one.
func (s served) session(t *testing.T) string {
	t.Helper()
	s.await(t, isActive)
	link, err := s.Link()
	if err != nil {
		t.Fatal(err)
	}
	_, token, _ := strings.Cut(link, "#")
	res, text := s.ask(t, "POST", s.host("localhost"), "/session", token)
	var got struct{ Session string }
	if err := json.Unmarshal([]byte(text), &got); err != nil || res.StatusCode != http.StatusOK || got.Session == "" {
		t.Fatalf("%d %q", res.StatusCode, text)
	}
	return got.Session
}

// What a DNS name of an attacker leads here (DNS rebinding) says that name as its Host.
func TestAHostThatIsNotThePagesGetsNothing(t *testing.T) {
	s := serve(t, nil)
	session := s.session(t)
	for host, want := range map[string]int{
		s.host("localhost"): 200, s.host("127.0.0.1"): 200, s.host("[::1]"): 200, s.host("LOCALHOST"): 200,
		"localhost": 421, "127.0.0.1": 421, "": 400, s.host("evil.example"): 421, "evil.example": 421, s.host("localhost.evil.example"): 421,
		s.host("127.0.0.2"): 421, s.host("0.0.0.0"): 421, s.host(".localhost"): 421, s.host("localhost."): 421, fmt.Sprintf("localhost:%d", s.port+1): 421,
		s.host("nobody.localhost"): 404, s.host("1.nobody.localhost"): 404,
	} {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET /v1/status HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n", host, session)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != want && (host != "" || res.StatusCode < 400) {
			t.Errorf("Host %q: %d, want %d", host, res.StatusCode, want)
		}
		_ = res.Body.Close()
		_ = c.Close()
	}
}

func TestAPageOfAnotherOriginGetsNothing(t *testing.T) {
	s := serve(t, nil, service{vm: "dev", port: 3000})
	session := s.session(t)
	for _, origin := range []string{"http://evil.example", "null", "https://" + s.host("localhost"), "http://" + s.host("3000.dev.localhost"), "http://localhost"} {
		for _, req := range [][2]string{{"GET", "/v1/status"}, {"POST", "/v1/release"}, {"POST", "/session"}, {"GET", "/"}, {"OPTIONS", "/v1/status"}} {
			res, _ := s.ask(t, req[0], s.host("localhost"), req[1], "", "Origin", origin, "Authorization", "Bearer "+session)
			if res.StatusCode != http.StatusForbidden || res.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s %s from %s: %d, %v", req[0], req[1], origin, res.StatusCode, res.Header)
			}
		}
	}
	if res, text := s.ask(t, "POST", s.host("localhost"), "/v1/release", "", "Origin", "http://"+s.host("localhost"), "Authorization", "Bearer "+session); res.StatusCode != 200 {
		t.Errorf("its own: %d %s", res.StatusCode, text)
	}
}

func TestTheAPIIsForSessionsAloneAndALinkOpensOne(t *testing.T) {
	s := serve(t, nil)
	s.await(t, isActive)
	link, err := s.Link()
	if err != nil || !strings.HasPrefix(link, "http://page-") {
		t.Fatalf("%q, %v", link, err)
	}
	_, token, _ := strings.Cut(link, "#")
	api := func(authorization string) int {
		res, _ := s.ask(t, "GET", s.host("localhost"), "/v1/status", "", "Authorization", authorization)
		return res.StatusCode
	}
	for _, a := range []string{"", "Bearer", "Bearer ", "Bearer " + token, "Basic " + token, "Bearer x"} {
		if code := api(a); code != http.StatusUnauthorized {
			t.Errorf("with %q: %d", a, code)
		}
	}
	res, text := s.ask(t, "POST", s.host("127.0.0.1"), "/session", token)
	var got struct{ Session string }
	if err := json.Unmarshal([]byte(text), &got); err != nil || res.StatusCode != 200 {
		t.Fatalf("%d %s", res.StatusCode, text)
	}
	if code := api("Bearer " + got.Session); code != 200 {
		t.Errorf("with a session: %d", code)
	}
	for _, again := range []string{token, "", got.Session, strings.Repeat("x", 1000)} {
		if res, _ := s.ask(t, "POST", s.host("localhost"), "/session", again); res.StatusCode == 200 {
			t.Errorf("%.20q opens a session", again)
		}
	}
}

func TestEachLinkLeadsToAnOriginThatNobodyHasHad(t *testing.T) {
	s := serve(t, nil)
	s.await(t, isActive)
	origins := make(map[string]bool)
	for range 3 {
		link, err := s.Link()
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(link)
		if err != nil || !regexp.MustCompile(`^page-[0-9a-f]{16}\.localhost$`).MatchString(u.Hostname()) {
			t.Fatalf("%s, %v", link, err)
		}
		origins[u.Host] = true
		res, text := s.ask(t, "POST", u.Host, "/session", u.Fragment, "Origin", "http://"+u.Host)
		if res.StatusCode != 200 {
			t.Errorf("%s: %d %s", link, res.StatusCode, text)
		}
		if res, text := s.ask(t, "GET", u.Host, "/", ""); res.StatusCode != 200 || !strings.Contains(text, "rum agents") {
			t.Errorf("%s: %d %s", link, res.StatusCode, text)
		}
		if res, _ := s.ask(t, "GET", u.Host, "/v1/status", "", "Origin", "http://"+s.host("localhost")); res.StatusCode != http.StatusForbidden {
			t.Errorf("a page of localhost gets %d", res.StatusCode)
		}
	}
	if len(origins) != 3 {
		t.Errorf("three links have the origins %v", origins)
	}
	for _, name := range []string{"page-0123456789abcde.localhost", "page-0123456789abcdeg.localhost", "page-.localhost", "1.page-0123456789abcdef.localhost"} {
		if res, _ := s.ask(t, "GET", s.host(name), "/", ""); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s is the page: %d", name, res.StatusCode)
		}
	}
}

func TestThePageLoadsNothingOfOthersIsInNoFrameAndSetsNoCookie(t *testing.T) {
	s := serve(t, nil)
	for _, path := range []string{"/", "/page.js", "/api.js", "/rows.js", "/chart.js", "/panel.js", "/page.css", "/icon.svg", "/session", "/v1/status", "/nothing"} {
		res, text := s.ask(t, "GET", s.host("localhost"), path, "")
		h := res.Header
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none';", "script-src 'self';", "frame-ancestors 'none';", "form-action 'none';", "base-uri 'none';"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: no %s in %q", path, want, csp)
			}
		}
		if strings.Contains(csp, "unsafe") || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("Set-Cookie") != "" || h.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: %v", path, h)
		}
		if strings.Contains(text, "//cdn") || strings.Contains(text, "innerHTML") || strings.Contains(text, "document.cookie") {
			t.Errorf("%s has something that it should not", path)
		}
	}
}

func TestThePageWaitsForItsAddressesAndSaysWhoHasOne(t *testing.T) {
	var mu sync.Mutex
	held := errors.New("127.0.0.1:7070 is held by nginx[812]")
	s := serve(t, func(a netip.AddrPort) (net.Listener, error) {
		mu.Lock()
		defer mu.Unlock()
		if held != nil && a.Addr().Is6() { // the other one is not kept meanwhile
			return nil, held
		}
		return net.Listen("tcp", a.String())
	})
	s.await(t, func(st *status.Page) bool { return st.State == status.Claim && st.Reason == held.Error() })
	if st := s.Status(); len(st.Addresses) != 2 {
		t.Errorf("%+v", st)
	}
	if link, err := s.Link(); !errors.Is(err, page.ErrNotServed) || !strings.Contains(err.Error(), "nginx[812]") {
		t.Errorf("%q, %v", link, err)
	}
	for vm := range s.Named(slices.Values([]status.VM{{Name: "dev"}})) {
		if vm.WebName != "" {
			t.Errorf("%+v", vm)
		}
	}
	mu.Lock()
	held = nil
	mu.Unlock()
	s.await(t, func(st *status.Page) bool { return isActive(st) && st.Reason == "" })
}

func TestAddressesAreOfLoopback(t *testing.T) {
	for text, want := range map[string]string{
		"localhost:7070": "[127.0.0.1:7070 [::1]:7070]", ":7071": "[127.0.0.1:7071 [::1]:7071]", "127.0.0.9:80": "[127.0.0.9:80]", "[::1]:1": "[[::1]:1]",
		"0.0.0.0:7070": "", "192.168.1.2:7070": "", "7070": "", "localhost:0": "", "localhost:x": "", "example.org:7070": "", "": "",
	} {
		got, err := page.ParseAddresses(text)
		if want == "" && err == nil || want != "" && fmt.Sprint(got) != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

// web is a server of a VM that says what it was asked.
func web(t *testing.T, name string) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Set-Cookie", "who="+name)
		fmt.Fprintf(w, "%s %s %s%s %s%q", name, r.Method, r.Host, r.URL.RequestURI(), r.Proto, body)
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: first\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done() // the client has the first while there is no other
	})
	mux.HandleFunc("/socket", func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(conn, rw)
	})
	srv := httptest.NewUnstartedServer(mux)
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return srv.Listener.Addr().String()
}

func TestANameLeadsToThePortOfItsVM(t *testing.T) {
	s := serve(t, nil,
		service{vm: "dev", port: 3000, addr: web(t, "one")},
		service{vm: "Dev", port: 3000, addr: web(t, "two")},
		service{vm: "x_y.z", port: 8080, label: "The Shop", addr: web(t, "three")})
	for host, want := range map[string]string{
		"3000.dev.localhost": "one", "3000.dev-2.localhost": "two", "8080.x-y-z.localhost": "three", "the-shop.x-y-z.localhost": "three", "3000.DEV.localhost": "one",
	} {
		res, text := s.ask(t, "POST", s.host(host), "/a%2Fb?q=1;2&%zz", "body")
		if wanted := want + " POST " + s.host(host) + `/a%2Fb?q=1;2&%zz HTTP/1.1"body"`; res.StatusCode != 200 || text != wanted {
			t.Errorf("%s: %d %s\nwant %s", host, res.StatusCode, text, wanted)
		}
		if res.Header.Get("Set-Cookie") != "who="+want || res.Header.Get("Content-Security-Policy") != "" {
			t.Errorf("%s: %v", host, res.Header)
		}
	}
}

func TestANameThatLeadsNowhereGetsAPageOfWhatThereIs(t *testing.T) {
	s := serve(t, nil, service{vm: "dev", port: 3000, label: "shop"}, service{vm: "other", port: 3001})
	for _, host := range []string{"4000.dev.localhost", "nothing.localhost", "dev.localhost", "03000x.dev.localhost", "03000.dev.localhost", "a.b.dev.localhost", "a&b.localhost"} {
		res, text := s.ask(t, "GET", s.host(host), "/", "")
		if res.StatusCode != http.StatusNotFound || !strings.Contains(text, "http://"+s.host("3000.dev.localhost")) || !strings.Contains(text, "http://"+s.host("shop.dev.localhost")) {
			t.Errorf("%s: %d\n%s", host, res.StatusCode, text)
		}
		if strings.Contains(text, "a&b.") || res.Header.Get("Content-Security-Policy") != "default-src 'none'; frame-ancestors 'none'" {
			t.Errorf("%s: %v\n%s", host, res.Header, text)
		}
		if of := strings.HasSuffix(host, "dev.localhost"); of == strings.Contains(text, "3001.other") {
			t.Errorf("%s: whether that is of another VM\n%s", host, text)
		}
	}
}

func TestAServiceThatDoesNotAnswerIsSaid(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	res, text := s.ask(t, "GET", s.host("3000.dev.localhost"), "/", "")
	if res.StatusCode != http.StatusBadGateway || !strings.Contains(text, "3000.dev does not answer") || !strings.Contains(text, "explain") {
		t.Errorf("%d %s", res.StatusCode, text)
	}
}

func TestHTTP2GoesOnAsHTTP2WhereItIsAsked(t *testing.T) {
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: web(t, "one")})
	s.await(t, isActive)
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.addr)
	}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Get("http://" + s.host("3000.dev.localhost") + "/x")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	if want := "one GET " + s.host("3000.dev.localhost") + `/x HTTP/2.0""`; string(text) != want {
		t.Errorf("%s\nwant %s", text, want)
	}
}

func TestAnEventOfAServerArrivesWhileTheAnswerGoesOn(t *testing.T) {
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: web(t, "one")})
	s.await(t, isActive)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.addr+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = s.host("3000.dev.localhost")
	res, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got := make([]byte, len("data: first\n\n"))
	if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != "data: first\n\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAWebSocketIsPassedOnBothWays(t *testing.T) {
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: web(t, "one")})
	s.await(t, isActive)
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, "GET /socket HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", s.host("3000.dev.localhost"))
	in := bufio.NewReader(c)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%+v, %v", res, err)
	}
	for _, frame := range [][]byte{[]byte("ping"), bytes.Repeat([]byte("x"), 100_000)} {
		go func() { _, _ = c.Write(frame) }()
		got := make([]byte, len(frame))
		if _, err := io.ReadFull(in, got); err != nil || !bytes.Equal(got, frame) {
			t.Errorf("%d bytes came back as %.10q, %v", len(frame), got, err)
		}
	}
}
