package browser_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/browser"
	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/logbuf"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

func TestMain(m *testing.M) {
	ownnet.Enter()
	os.Exit(m.Run())
}

func TestAPortIsOpenedOnLocalhostIfItIsThereAndByItsNumberOnTheHost(t *testing.T) {
	forward := func(guest uint16, listening ...string) status.Forward {
		return status.Forward{Proto: "tcp", Port: guest, Listening: listening}
	}
	moved := forward(80, "127.0.0.1:8080", "[::1]:8080", "127.77.3.9:80")
	for _, row := range []struct {
		port     uint16
		forwards []status.Forward
		want     string
	}{
		{8080, []status.Forward{moved}, "127.0.0.1:8080"},
		{80, []status.Forward{moved}, "127.0.0.1:8080"},
		{3000, []status.Forward{forward(3000, "127.0.0.1:3001"), forward(3000, "127.77.3.9:3000"), forward(2, "127.0.0.1:3000")}, "127.0.0.1:3000"},
		{3000, []status.Forward{forward(3000, "127.77.3.9:3000")}, "127.77.3.9:3000"},
		{3000, []status.Forward{forward(3000, "0.0.0.0:3000")}, "0.0.0.0:3000"},
		{3000, []status.Forward{forward(3000, "/run/a.sock"), {Proto: "udp", Port: 3000, Listening: []string{"127.0.0.1:3000"}},
			{Proto: "tcp", Port: 3000, Reverse: true, Listening: []string{"127.0.0.1:3000"}}, forward(3000)}, ""},
	} {
		got, ok := browser.Find(status.Status{VMs: []status.VM{{Forwards: row.forwards}}}, row.port)
		if ok != (row.want != "") || ok && got.Addr.String() != row.want {
			t.Errorf("%d of %+v: %v, want %q", row.port, row.forwards, got, row.want)
		}
	}
}

// serve serves connections at an address, whose URL it returns.
func serve(t *testing.T, with func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				with(c)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return browser.URL(t.Context(), netip.MustParseAddrPort(l.Addr().String()), func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	})
}

func TestWhatSpeaksTLSIsHTTPSAndNothingElseIs(t *testing.T) {
	for what, with := range map[string]func(net.Conn){
		"refuses the handshake": func(c net.Conn) {
			_ = tls.Server(c, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, errors.New("not you") }}).Handshake()
			_, _ = io.Copy(io.Discard, c)
		},
		"echoes":      func(c net.Conn) { _, _ = io.Copy(c, c) },
		"says hello":  func(c net.Conn) { _, _ = io.WriteString(c, "220 hello\r\n"); _, _ = io.Copy(io.Discard, c) },
		"is silent":   func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"just closes": func(net.Conn) {},
	} {
		if url := serve(t, with); strings.HasPrefix(url, "https://localhost:") != (what == "refuses the handshake") || !strings.HasSuffix(url, "/") {
			t.Errorf("what %s has the URL %s", what, url)
		}
	}
}

// desktop is what xdg-open was asked for.
func desktop(t *testing.T, display string) (opened func() []string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "xdg-open"), []byte("#!/bin/sh\necho \"$@\" >>"+dir+"/opened\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("DISPLAY", display)
	t.Setenv("WAYLAND_DISPLAY", "")
	return func() []string {
		text, _ := os.ReadFile(filepath.Join(dir, "opened"))
		return strings.Fields(string(text))
	}
}

// forwarded is what happens when a port is forwarded.
func forwarded(vm, rule string, port uint16) events.Event {
	return events.Event{
		Kind: events.Forwarding, VM: vm, Proto: "tcp", Port: port, Host: []string{fmt.Sprintf("127.0.0.1:%d", port)},
		Rule: rule, Open: strings.TrimLeft(rule, "0123456789:"),
	}
}

// dial connects to where a port is forwarded.
func dial(ctx context.Context, e events.Event) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", e.Host[0])
}

// follow has rules followed until URLs are opened. Nothing else is.
func follow(t *testing.T, opened func() []string, connect browser.Connect, want []string, all ...events.Event) {
	t.Helper()
	history := events.New()
	for _, e := range all[:1] { // before it is followed
		history.Publish(e)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	var log logbuf.Buffer
	go func() {
		defer close(done)
		browser.FollowRules(ctx, history, connect, slog.New(slog.NewTextHandler(&log, nil)))
	}()
	for _, e := range all[1:] {
		history.Publish(e)
	}
	for end := time.Now().Add(20 * time.Second); len(opened()) < len(want) && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	<-done
	got := slices.Sorted(slices.Values(opened()))
	if tried := strings.Count(log.String(), "browser is opened"); !slices.Equal(got, want) || tried != len(want) {
		t.Errorf("opened are %v, want %v\n%s", got, want, log.String())
	}
}

func TestARuleOpensABrowserOnceHoweverOftenItsPortsCome(t *testing.T) {
	opened := desktop(t, ":0")
	all := []events.Event{forwarded("dev", "1:web", 3000), forwarded("dev", "", 3001)}
	for range 50 { // as a guest may that stops and starts its servers
		e := forwarded("dev", "1:web", 3000)
		e.Kind = events.Stopped
		all = append(all, e, forwarded("dev", "1:web", 3000), forwarded("dev", "1:web", 3002))
	}
	// The rule has moved to another line, and another VM has its port too.
	all = append(all, forwarded("dev", "7:web", 3000), forwarded("shop", "7:web", 3003))
	claimed := forwarded("shop", "7:api", 3004)
	claimed.Kind = events.Claimed
	claim := forwarded("dev", "8:db", 3005)
	claim.Kind = events.Claim // whose address something else has
	all = append(all, claimed, claim, forwarded("dev", "9:last", 3006))
	follow(t, opened, dial, []string{"http://localhost:3000/", "http://localhost:3004/", "http://localhost:3006/"}, all...)
}

// It says whether it speaks TLS when the other window is open.
func TestASilentServiceKeepsNoOtherWindowWaiting(t *testing.T) {
	opened := desktop(t, ":0")
	want := []string{"http://localhost:3000/", "http://localhost:3001/"}
	connect := func(_ context.Context, e events.Event) (net.Conn, error) {
		for end := time.Now().Add(20 * time.Second); e.Port == 3000 && !slices.Contains(opened(), want[1]); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("nothing but %v is opened", opened())
				break
			}
		}
		return nil, errors.New("nothing is there")
	}
	follow(t, opened, connect, want, forwarded("dev", "1:web", 3000), forwarded("dev", "2:api", 3001))
}

func TestWithoutADisplayNoRuleOpensABrowser(t *testing.T) {
	opened := desktop(t, "")
	var log strings.Builder
	history := events.New()
	history.Publish(forwarded("dev", "1:web", 3000))
	ctx, cancel := context.WithCancel(t.Context())
	handler := slog.NewTextHandler(&log, nil)
	browser.FollowRules(ctx, history, dial, slog.New(untilFirst{handler, cancel}))
	if got := opened(); len(got) > 0 || !strings.Contains(log.String(), "no display") {
		t.Errorf("opened are %v; %s", got, log.String())
	}
}

// untilFirst calls a function when something is logged.
type untilFirst struct {
	slog.Handler
	then func()
}

func (u untilFirst) Handle(ctx context.Context, r slog.Record) error {
	defer u.then()
	return u.Handler.Handle(ctx, r)
}

func (u untilFirst) WithAttrs(attrs []slog.Attr) slog.Handler {
	return untilFirst{u.Handler.WithAttrs(attrs), u.then}
}

// command has a program of a name be a script, which may use $DIR.
func command(t *testing.T, name, script string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\nDIR="+dir+"\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

func TestADesktopThatCannotOpenAURLIsAnErrorAndABrowserThatStaysIsNone(t *testing.T) {
	for script, want := range map[string]bool{"exit 3": false, "exit 0": true, "exec sleep 600": true} {
		command(t, "xdg-open", script)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		if err := browser.Start(ctx, "https://example.com/", func() { close(ended) }); (err == nil) != want {
			t.Errorf("%s: %v", script, err)
		}
		cancel()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: it goes on", script)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if err := browser.Start(t.Context(), "https://example.com/", func() {}); err == nil {
		t.Error("without xdg-open")
	}
}

func TestTheDesktopIsAskedInPlainTextAndItsAnswerTaken(t *testing.T) {
	for script, want := range map[string]string{
		"echo open": "true true", "echo refuse": "false true", ":": "false false", "echo open; exit 1": "false false", "echo what": "false false",
	} {
		dir := command(t, "notify-send", `for a; do echo "[$a]"; done >"$DIR/args"; `+script)
		accept, decided := browser.Notify(t.Context(), "--dev asks", `On a: https://a/?<b>"&c`)
		if got := fmt.Sprint(accept, decided); got != want {
			t.Errorf("%s: %s, want %s", script, got, want)
		}
		args, err := os.ReadFile(filepath.Join(dir, "args"))
		if err != nil || !strings.HasSuffix(string(args), "[--]\n[--dev asks]\n[On a: https://a/?&lt;b&gt;&#34;&amp;c]\n") {
			t.Errorf("it is given %s (%v)", args, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	command(t, "notify-send", "exec sleep 600")
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, decided := browser.Notify(ctx, "dev", "asks"); decided {
		t.Error("who says nothing has decided")
	}
}
