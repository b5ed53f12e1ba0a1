package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// byName asks for a page by a name, which is resolved as browsers do.
func byName(t *testing.T, url string) (code int, text string) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		_, port, _ := net.SplitHostPort(addr)
		return new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:"+port)
	}}
	res, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// web serves pages in a guest that say whose they are.
func (g *guestVM) web(t *testing.T, addr string) {
	t.Helper()
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s at %s", g.name, r.Host)
	})}
	l := g.listen(t, addr)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
}

// TestTwoVMsHaveTheirPortsByName also has a port that this host has, and one that rules keep in.
func TestTwoVMsHaveTheirPortsByName(t *testing.T) {
	one, two := newGuest(t, "one"), newGuest(t, "Two")
	taken, err := net.Listen("tcp", "127.0.0.1:3100")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	rules := filepath.Join(t.TempDir(), "rum.toml")
	if err := os.WriteFile(rules, []byte("[[ports]]\nguest = 80\nhost = 8080\nlabel = \"The shop\"\n\n[[ports]]\nguest = 9229\nignore = true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := &hostAgent{socket: filepath.Join(t.TempDir(), "control.sock")}
	h.program = start(t, "rum-host-agent", "run", "--socket", h.socket, "--config", rules, "--http", "localhost:7071", "--vm", one.vm(), "--vm", two.vm())
	for _, g := range []*guestVM{one, two} {
		for _, addr := range []string{"0.0.0.0:3000", "127.0.0.1:3100", "0.0.0.0:80", "0.0.0.0:9229"} {
			g.web(t, addr)
		}
	}
	eventually(t, "the ports", func() bool {
		st, err := control.NewClient(h.socket).Status(t.Context())
		return err == nil && len(st.VMs) == 2 && len(st.VMs[0].Forwards) == 4 && len(st.VMs[1].Forwards) == 4
	})
	for url, want := range map[string]string{
		"http://3000.one.localhost:7071/": "one", "http://3000.two.localhost:7071/": "Two", // of which one has localhost:3000
		"http://3100.one.localhost:7071/": "one", "http://3100.two.localhost:7071/": "Two", // which neither has
		"http://80.one.localhost:7071/": "one", "http://the-shop.two.localhost:7071/": "Two",
	} {
		host := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/")
		if code, text := byName(t, url); code != http.StatusOK || text != want+" at "+host {
			t.Errorf("%s: %d %s", url, code, text)
		}
	}
	for _, name := range []string{"9229.one", "4000.one", "one", "3000.three"} {
		if code, text := byName(t, "http://"+name+".localhost:7071/"); code != http.StatusNotFound || strings.Contains(text, " at ") || !strings.Contains(text, "http://3000.one.localhost:7071/") {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	vm := h.vm(t, "Two")
	if vm.WebName != "two.localhost:7071" {
		t.Errorf("it is called %q", vm.WebName)
	}
	for _, f := range vm.Forwards {
		want := map[uint16]string{80: "[http://the-shop.two.localhost:7071/ http://80.two.localhost:7071/]", 3000: "[http://3000.two.localhost:7071/]", 3100: "[http://3100.two.localhost:7071/]", 9229: "[]"}[f.Port]
		if got := fmt.Sprint(f.URLs); got != want {
			t.Errorf("port %d, which is %s, is at %s, want %s", f.Port, f.State, got, want)
		}
		if f.Port == 3100 && f.State != status.Claim {
			t.Errorf("%+v", f)
		}
	}
}

// TestAPortOfTheGuestThatThePageHasIsAClaimAndFoundByName has a guest with a service on the port of the page.
func TestAPortOfTheGuestThatThePageHasIsAClaimAndFoundByName(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	g.web(t, "0.0.0.0:7070")
	h.awaitForward(t, "dev", 7070, "a claim", func(f status.Forward) bool {
		return f.State == status.Claim && strings.Contains(f.Reason, status.OwnPage)
	})
	if code, text := byName(t, "http://7070.dev.localhost:7070/"); code != http.StatusOK || !strings.HasPrefix(text, "dev at") {
		t.Errorf("%d %s", code, text)
	}
	if code, _ := byName(t, "http://localhost:7070/"); code != http.StatusOK {
		t.Errorf("the page: %d", code)
	}
}

// serveTwoWays serves ports 3000 and 3001 of a guest, which are reached by different ways by name.
func serveTwoWays(t *testing.T, handler http.HandlerFunc) (*guestVM, *hostAgent) {
	t.Helper()
	g := newGuest(t, "dev")
	rules := filepath.Join(t.TempDir(), "rum.toml")
	if err := os.WriteFile(rules, []byte("[[ports]]\nguest = 3001\nhold = \"1s\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := &hostAgent{socket: filepath.Join(t.TempDir(), "control.sock")}
	h.program = start(t, "rum-host-agent", "run", "--socket", h.socket, "--config", rules, "--http", "localhost:7071", "--vm", g.vm())
	srv := &http.Server{Handler: handler}
	for _, addr := range []string{"0.0.0.0:3000", "0.0.0.0:3001"} {
		l := g.listen(t, addr)
		go func() { _ = srv.Serve(l) }()
	}
	t.Cleanup(func() { _ = srv.Close() })
	return g, h
}

// greetedByName sends a request, which is given without its Host, and reads until the service has said hello.
func greetedByName(t *testing.T, port int, request string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.DialTimeout("tcp", "127.0.0.1:7071", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(c, "%sHost: %d.dev.localhost:7071\r\n\r\n", request, port)
	in := bufio.NewReader(c)
	for line := ""; line != "hello\n"; {
		if line, err = in.ReadString('\n'); err != nil {
			t.Fatalf("%d, %q: %q, %v", port, request, line, err)
		}
	}
	return c, in
}

// TestWhatAKilledGuestAgentCutsIsResetByName has an answer whose end is that of its connection, and a changed
// protocol; the second port is reached by another way than the first.
func TestWhatAKilledGuestAgentCutsIsResetByName(t *testing.T) {
	g, h := serveTwoWays(t, func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		head := "HTTP/1.1 200 OK\r\n\r\n"
		if r.Header.Get("Upgrade") != "" {
			head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
		}
		fmt.Fprint(c, head, "hello\n")
		_, _ = rw.ReadByte() // until it is cut
	})
	eventually(t, "the ports", func() bool {
		st, err := control.NewClient(h.socket).Status(t.Context())
		return err == nil && len(st.VMs) == 1 && len(st.VMs[0].Forwards) == 2
	})
	clients := make(map[string]*bufio.Reader)
	for _, port := range []int{3000, 3001} {
		for _, request := range []string{"GET / HTTP/1.0\r\n", "DELETE / HTTP/1.0\r\n", "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: echo\r\n"} {
			_, clients[fmt.Sprintf("%d, %q", port, request)] = greetedByName(t, port, request)
		}
	}
	g.agent.kill()
	for name, in := range clients {
		if text, err := io.ReadAll(in); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s ends with %q and %v", name, text, err)
		}
	}
}

// TestAServiceSeesAClientByNameResetItsUpgradedConnection has two ports that are reached by different ways.
func TestAServiceSeesAClientByNameResetItsUpgradedConnection(t *testing.T) {
	ended := make(chan error, 2)
	_, h := serveTwoWays(t, func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello\n")
		_, err = io.ReadAll(rw)
		ended <- err
	})
	eventually(t, "the control socket", func() bool {
		_, err := control.NewClient(h.socket).Status(t.Context())
		return err == nil
	})
	for _, port := range []int{3000, 3001} {
		h.awaitForward(t, "dev", port, "active", active)
		c, _ := greetedByName(t, port, "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: echo\r\n")
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
		if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("port %d: it ends with %v", port, err)
		}
	}
}

// TestAConnectionToAServiceIsUsedAgainByName has two ports that are reached by different ways.
func TestAConnectionToAServiceIsUsedAgainByName(t *testing.T) {
	connections := new(atomic.Int32)
	_, h := serveTwoWays(t, func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		connections.Add(1)
		for err == nil {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")
			_, err = http.ReadRequest(rw.Reader)
		}
	})
	eventually(t, "the control socket", func() bool {
		_, err := control.NewClient(h.socket).Status(t.Context())
		return err == nil
	})
	for _, port := range []int{3000, 3001} {
		h.awaitForward(t, "dev", port, "active", active)
		connections.Store(0)
		c, err := net.Dial("tcp", "127.0.0.1:7071")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		in := bufio.NewReader(c)
		for range 5 { // by one client, whose it is
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %d.dev.localhost:7071\r\n\r\n", port)
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if text, err := io.ReadAll(res.Body); res.StatusCode != http.StatusOK || string(text) != "hello\n" {
				t.Errorf("port %d: %s %q (%v)", port, res.Status, text, err)
			}
		}
		if n := connections.Load(); n == 5 {
			t.Errorf("port %d: five requests took %d connections", port, n)
		}
	}
}

// TestAServiceThatTakesItsTimeByNameHasNoError has two ports that are reached by different ways.
func TestAServiceThatTakesItsTimeByNameHasNoError(t *testing.T) {
	_, h := serveTwoWays(t, func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(300 * time.Millisecond)
		fmt.Fprint(w, "hello\n")
	})
	eventually(t, "the control socket", func() bool {
		_, err := control.NewClient(h.socket).Status(t.Context())
		return err == nil
	})
	for _, port := range []int{3000, 3001} {
		h.awaitForward(t, "dev", port, "active", active)
		for range 2 {
			greetedByName(t, port, "GET / HTTP/1.1\r\n")
		}
	}
	for _, f := range h.vm(t, "dev").Forwards {
		if f.LastError != "" {
			t.Errorf("port %d: %s", f.Port, f.LastError)
		}
	}
}
