package openurl_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/openurl"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/logbuf"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// host is a host agent of VMs, as far as an opener sees it.
type host struct {
	*openurl.Opener
	log logbuf.Buffer

	mu       sync.Mutex
	setting  map[string]string
	forwards map[string]map[uint16]*status.Forward
	added    map[string]status.Added // by "vm port"
	taken    map[uint16]bool         // by a program of the host
	opened   []string
	display  error
	six      map[uint16]bool // taken at [::1] by a program of the host
	browser  error           // why none opens
	notified chan string
	says     chan bool // on the desktop
}

// start runs an opener in the bubble of a test.
func start(t *testing.T) *host {
	h := &host{
		setting: map[string]string{"ask": "ask", "yes": "yes"}, forwards: make(map[string]map[uint16]*status.Forward), added: make(map[string]status.Added),
		taken: make(map[uint16]bool), six: make(map[uint16]bool), notified: make(chan string, 100), says: make(chan bool),
	}
	h.run(t, openurl.Config{
		Setting: func(vm string) string { h.mu.Lock(); defer h.mu.Unlock(); return h.setting[vm] },
		VMs:     h.vms, AddForward: h.add, RemoveForward: h.remove, Forwards: h.list,
		Vacant: func(at netip.AddrPort) bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			return !h.taken[at.Port()] && (at.Addr().Is4() || !h.six[at.Port()])
		},
		Addresses: func() ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8::9")}, nil
		},
		Ready: func() error { h.mu.Lock(); defer h.mu.Unlock(); return h.display },
		Open: func(_ context.Context, url string, done func()) error {
			defer done()
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.browser != nil {
				return h.browser
			}
			h.opened = append(h.opened, url)
			return nil
		},
		Notify: func(ctx context.Context, title, text string) (bool, bool) {
			h.notified <- title + ": " + text
			select {
			case accept := <-h.says:
				return accept, true
			case <-ctx.Done():
				return false, false
			}
		},
	})
	return h
}

// run has an opener until the test ends.
func (h *host) run(t *testing.T, c openurl.Config) {
	c.Events, c.Log = events.New(), slog.New(slog.NewTextHandler(&h.log, nil))
	h.Opener = openurl.New(c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	synctest.Wait()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// listen has a VM listen on a port that rules keep in as an ephemeral one, or that is forwarded.
func (h *host) listen(vm string, port uint16, forwarded bool) *status.Forward {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := &status.Forward{Proto: "tcp", Port: port, Guest: []string{fmt.Sprintf("127.0.0.1:%d", port)}, State: status.Ignored, Rule: "default", Reason: "ephemeral"}
	if forwarded {
		f.State, f.Reason = status.Active, ""
		f.Host = []string{fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("[::1]:%d", port), fmt.Sprintf("127.77.3.9:%d", port)}
		f.Listening = f.Host
		f.URLs = []string{fmt.Sprintf("http://%d.%s.localhost:7070/", port, vm)}
	}
	if h.forwards[vm] == nil {
		h.forwards[vm] = make(map[uint16]*status.Forward)
	}
	h.forwards[vm][port] = f
	return f
}

func (h *host) vms(q status.Query) iter.Seq[status.VM] {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []status.VM
	for _, vm := range slices.Sorted(maps.Keys(h.forwards)) {
		st := status.VM{Name: vm}
		for _, f := range h.forwards[vm] {
			st.Forwards = append(st.Forwards, *f)
		}
		st.Forwards = q.Of(st.Forwards)
		if q.VM == "" || q.VM == vm {
			all = append(all, st)
		}
	}
	return slices.Values(all)
}

func (h *host) add(vm, ports, proto string, _ time.Duration) (status.Added, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := vm + " " + ports
	if _, there := h.added[key]; there || proto != "tcp" {
		return status.Added{}, fs.ErrExist
	}
	var port uint16
	_, _ = fmt.Sscan(ports, &port)
	a := status.Added{VM: vm, Proto: proto, Host: ports, Guest: ports, AddedAt: time.Now()}
	h.added[key] = a
	if f := h.forwards[vm][port]; f != nil {
		f.Host = []string{"127.0.0.1:" + ports, "[::1]:" + ports}
		f.State, f.Reason = status.Claim, "held by cupsd"
		if !h.taken[port] {
			f.State, f.Reason, f.Listening = status.Active, "", f.Host
		}
	}
	return a, nil
}

func (h *host) remove(vm, ports, _ string) (status.Added, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a, there := h.added[vm+" "+ports]
	if !there {
		return a, fs.ErrNotExist
	}
	delete(h.added, vm+" "+ports)
	var port uint16
	_, _ = fmt.Sscan(ports, &port)
	if f := h.forwards[vm][port]; f != nil {
		f.State, f.Reason, f.Host, f.Listening = status.Ignored, "ephemeral", nil, nil
	}
	return a, nil
}

func (h *host) list(vm string) (all []status.Added, _ error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.added {
		if a.VM == vm {
			all = append(all, a)
		}
	}
	return all, nil
}

// open has a VM ask, and returns the answer.
func (h *host) open(vm, url string) (wire.OpenOutcome, string) { return h.openAs(vm, 0, url) }

// openAs has a user of a VM ask.
func (h *host) openAs(vm string, user uint32, url string) (wire.OpenOutcome, string) {
	type answer struct {
		o      wire.OpenOutcome
		reason string
	}
	c := make(chan answer, 2)
	h.Ask(vm, user, url, func(o wire.OpenOutcome, reason string) { c <- answer{o, reason} })
	a := <-c
	return a.o, a.reason
}

// setTaken has a program of the host begin or end to have a port.
func (h *host) setTaken(port uint16, taken bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taken[port] = taken
}

// has reports what was opened and which ports are brought out.
func (h *host) has() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return fmt.Sprint(h.opened, slices.Sorted(maps.Keys(h.added)))
}

func (h *host) expect(t *testing.T, want string) {
	t.Helper()
	if got := h.has(); got != want {
		t.Errorf("there is %s, want %s", got, want)
	}
}

const page = "https://example.com/login"

func TestAVMOpensWhatTheUserHasAllowedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		for _, row := range []struct {
			vm, url string
			want    wire.OpenOutcome
			reason  string
		}{
			{"none", page, wire.OpenNotAllowed, `open_urls = "ask"`},
			{"ask", page, wire.OpenAsked, "example.com"},
			{"yes", page, wire.OpenOpened, "example.com"},
			{"yes", "https://bücher.example/", wire.OpenOpened, "xn--bcher-kva.example"},
			{"yes", "http://192.168.1.1/reboot", wire.OpenAsked, "192.168.1.1"},
			{"yes", "http://router/", wire.OpenAsked, "router"},
			{"yes", "file:///etc/passwd", wire.OpenRefused, "http"},
		} {
			if o, reason := h.open(row.vm, row.url); o != row.want || !strings.Contains(reason, row.reason) {
				t.Errorf("%s of %s: %d %s", row.url, row.vm, o, reason)
			}
		}
		h.expect(t, "[https://example.com/login https://xn--bcher-kva.example/] []")
		if log := h.log.String(); !strings.Contains(log, "example.com") || strings.Contains(log, "/login") {
			t.Errorf("the log has more or less than the host:\n%s", log)
		}
		h.display = errors.New("this agent has no display")
		if o, reason := h.open("yes", page); o != wire.OpenRefused || !strings.Contains(reason, "no display") {
			t.Errorf("without a display: %d %s", o, reason)
		}
	})
}

func TestAPageIsOpenedWhenTheUserSaysSoAndOnlyOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		for range 3 { // joined
			if o, _ := h.open("ask", page); o != wire.OpenAsked {
				t.Fatal(o)
			}
		}
		all := h.Requests()
		if len(all) != 1 || all[0].URL != page || all[0].VM != "ask" || all[0].Host != "example.com" {
			t.Fatalf("%+v", all)
		}
		// Every user of the host can read what the desktop is told.
		if text := <-h.notified; !strings.HasPrefix(text, "ask asks to open a page: On example.com: https://example.com\nThe whole URL is on the page") || strings.Contains(text, "login") {
			t.Errorf("the desktop says %q", text)
		}
		if err := h.Answer(t.Context(), all[0].ID, true); err != nil {
			t.Error(err)
		}
		if err := h.Answer(t.Context(), all[0].ID, true); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("answered again: %v", err)
		}
		h.expect(t, "[https://example.com/login] []")

		h.open("ask", "https://example.com/2")
		h.says <- false // on the desktop
		synctest.Wait()
		h.open("ask", "https://example.com/3")
		h.says <- true
		synctest.Wait()
		h.open("ask", "https://example.com/4")
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if all := h.Requests(); len(all) != 0 {
			t.Errorf("%+v waits for ever", all)
		}
		h.expect(t, "[https://example.com/login https://example.com/3] []")

		h.open("ask", "https://example.com/5")
		h.mu.Lock()
		h.setting["ask"] = "no"
		h.mu.Unlock()
		if err := h.Answer(t.Context(), h.Requests()[0].ID, true); err == nil || !strings.Contains(err.Error(), "open_urls") {
			t.Errorf("what is not allowed any more: %v", err)
		}
	})
}

func TestAPageThatCannotBeOpenedYetCanBeAnsweredAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		h.listen("ask", 43210, false)
		if o, reason := h.open("ask", login(43210)); o != wire.OpenAsked {
			t.Fatalf("%d %s", o, reason)
		}
		id := h.Requests()[0].ID
		h.setTaken(43210, true)
		if err := h.Answer(t.Context(), id, true); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("while another has the port: %v", err)
		}
		if all := h.Requests(); len(all) != 1 || all[0].ID != id {
			t.Fatalf("what waits is %+v", all)
		}
		h.setTaken(43210, false)
		if err := h.Answer(t.Context(), id, true); err != nil {
			t.Error(err)
		}
		h.expect(t, "["+login(43210)+"] [ask 43210]")
		if err := h.Answer(t.Context(), id, true); !errors.Is(err, fs.ErrNotExist) || len(h.Requests()) != 0 {
			t.Errorf("answered again: %v", err)
		}
	})
}

func TestWhatAVMAsksForHasABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		count := make(map[wire.OpenOutcome]int)
		for i := range 100 {
			o, _ := h.open("ask", fmt.Sprintf("https://example.com/%d", i))
			count[o]++
		}
		if count[wire.OpenAsked] != 4 || count[wire.OpenRefused] != 96 || len(h.Requests()) != 4 {
			t.Errorf("of each outcome: %v; %d wait", count, len(h.Requests()))
		}
		if o, _ := h.open("yes", page); o != wire.OpenOpened {
			t.Error("another VM pays for it")
		}
		clear(count)
		for i := range 1000 {
			time.Sleep(100 * time.Millisecond)
			o, _ := h.open("yes", fmt.Sprintf("https://example.com/%d", i))
			count[o]++
		}
		if count[wire.OpenOpened] > 30 {
			t.Errorf("%d are opened in 100 s", count[wire.OpenOpened])
		}
		for vm := range 20 {
			name := fmt.Sprint("vm", vm)
			h.mu.Lock()
			h.setting[name] = "ask"
			h.mu.Unlock()
			for i := range 8 {
				h.open(name, fmt.Sprintf("https://example.com/%d", i))
			}
		}
		if n := len(h.Requests()); n != 64 {
			t.Errorf("%d wait of all VMs", n)
		}
	})
}

func TestAUserOfAVMWithManyPagesKeepsNoOtherFromHis(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		for i := range 20 {
			for user := range uint32(4) {
				h.openAs("ask", 1000+user, fmt.Sprintf("https://example.com/%d/%d", user, i))
			}
			time.Sleep(10 * time.Second)
		}
		for user := range uint32(4) {
			if o, reason := h.openAs("ask", 2000+user, fmt.Sprintf("https://example.org/%d", user)); o != wire.OpenAsked {
				t.Errorf("another user's first: %d %s", o, reason)
			}
			if n := len(h.Requests()); n > 8 {
				t.Errorf("%d wait", n)
			}
		}
		if o, reason := h.openAs("ask", 3000, "https://example.org/none"); o != wire.OpenRefused {
			t.Errorf("where all have one: %d %s", o, reason)
		}
		for user := range uint32(10) {
			for i := range 20 {
				h.openAs("yes", 1000+user, fmt.Sprintf("https://example.com/%d", i))
			}
		}
		if o, reason := h.openAs("yes", 2000, page); o != wire.OpenOpened {
			t.Errorf("another user's page: %d %s", o, reason)
		}
	})
}

func TestWhatAVMOpensHasABoundHoweverManyUsersItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		for user := range uint32(1000) {
			h.openAs("yes", user, fmt.Sprintf("https://example.com/%d", user))
			h.openAs("ask", user, fmt.Sprintf("https://example.com/%d", user))
		}
		if n := strings.Count(h.has(), "https://"); n > 24 {
			t.Errorf("%d are opened at once", n)
		}
		if n := len(h.Requests()); n > 8 {
			t.Errorf("%d wait", n)
		}
	})
}

func TestOnThisHostAVMOpensItsOwnForwardsAloneAndTheUserIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		h.listen("yes", 3000, true)
		h.listen("other", 4000, true)
		h.listen("yes", 80, false)
		h.listen("yes", 43210, false)
		h.listen("yes", 9229, false).Reason = "ignored by rum.toml:6"
		h.forwards["yes"][9229].Rule = "rum.toml:6"
		for _, port := range []uint16{3001, 3002} { // as rum binds a port
			f := h.listen("yes", port, true)
			f.Listening = f.Listening[:1]
		}
		h.six[3002], h.taken[3002] = true, true
		h.listen("yes", 5000, false).Guest = []string{"10.0.0.3:5000"}
		for url, want := range map[string]wire.OpenOutcome{
			"http://localhost:3000/": wire.OpenAsked, "http://[::1]:3000/x": wire.OpenAsked, "http://0x7f.1:3000/y": wire.OpenAsked, "http://127.77.3.9:3000/": wire.OpenAsked,
			"http://localhost:3001/": wire.OpenAsked,
		} {
			if o, reason := h.open("yes", url); o != want {
				t.Errorf("%s: %d %s", url, o, reason)
			}
			if r := h.Requests()[0]; r.Place != "this host" || h.Answer(t.Context(), r.ID, false) != nil {
				t.Errorf("%+v", r)
			}
		}
		time.Sleep(time.Minute)
		for _, url := range []string{
			"http://localhost:4000/", "http://localhost:631/", "http://127.0.0.1:7070/", "http://4000.other.localhost:7070/", "http://127.77.3.10:3000/",
			"http://localhost/", "http://localhost:9229/", "http://localhost:5000/", "http://localhost:3002/", "http://2130706433:4000/",
		} {
			time.Sleep(time.Minute)
			if o, reason := h.open("yes", url); o != wire.OpenRefused {
				t.Errorf("%s: %d %s", url, o, reason)
			}
		}
		// A port on which the VM listens and that is kept in is brought out, once the user has said so.
		for _, url := range []string{"http://3000.yes.localhost:7070/", "http://127.0.0.1:43210/"} {
			time.Sleep(time.Minute)
			if o, reason := h.open("yes", url); o != wire.OpenAsked {
				t.Errorf("%s: %d %s", url, o, reason)
			}
			h.expect(t, "[] []")
			if url == "http://127.0.0.1:43210/" {
				break
			}
			_ = h.Answer(t.Context(), h.Requests()[0].ID, false)
		}
		if err := h.Answer(t.Context(), h.Requests()[0].ID, true); err != nil {
			t.Error(err)
		}
		h.expect(t, "[http://127.0.0.1:43210/] [yes 43210]")
	})
}

func TestAPageAtAnAddressOfTheHostsIsOneOfTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		h.listen("yes", 3000, true).Listening = []string{"0.0.0.0:3000"} // as a rule can have it
		h.listen("yes", 3001, true)
		h.listen("other", 3002, true).Listening = []string{"0.0.0.0:3002"}
		for url, want := range map[string]wire.OpenOutcome{
			"http://203.0.113.9:25000/": wire.OpenRefused, "http://203.0.113.9:3001/": wire.OpenRefused, "http://203.0.113.9:3002/": wire.OpenRefused,
			"http://[2001:db8::9]/": wire.OpenRefused, "http://[2002:cb00:7109::]:25000/": wire.OpenRefused, "http://[::127.0.0.1]:7070/": wire.OpenRefused,
			"http://203.0.113.9:3000/": wire.OpenAsked, "http://203.0.113.10:25000/": wire.OpenOpened,
		} {
			if o, reason := h.open("yes", url); o != want {
				t.Errorf("%s: %d %s, want %d", url, o, reason, want)
			}
		}
	})
}

func TestTheAddressesOfTheHostAreThoseOfItsInterfaces(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		h := &host{setting: map[string]string{"yes": "yes"}}
		h.run(t, openurl.Config{
			Setting: func(string) string { return "yes" }, Ready: func() error { return nil }, VMs: h.vms,
			Open:   func(_ context.Context, _ string, done func()) error { defer done(); return nil },
			Notify: func(context.Context, string, string) (accept, decided bool) { return false, false },
		})
		for _, a := range addrs {
			ip := a.(*net.IPNet).IP
			o, reason := h.open(ip.String(), "http://"+net.JoinHostPort(ip.String(), "25000")+"/")
			if o != wire.OpenRefused || !ip.IsLoopback() && !strings.Contains(reason, "is this host's own") {
				t.Errorf("%v: %d %s", ip, o, reason)
			}
		}
	})
}

// login is a page that sends its user back to ports of localhost.
func login(ports ...int) string {
	url := page + "?x"
	for _, p := range ports {
		url += fmt.Sprintf("&redirect_uri=http%%3A%%2F%%2Flocalhost%%3A%d%%2Fcallback", p)
	}
	return url
}

func TestThePortOfACallbackIsBroughtOutForTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		time.AfterFunc(time.Second, func() { h.listen("yes", 43210, false) }) // which is announced after the URL has come
		h.listen("yes", 3000, true)
		if o, reason := h.open("yes", login(43210, 3000)); o != wire.OpenOpened {
			t.Fatalf("%d %s", o, reason)
		}
		h.expect(t, "["+login(43210, 3000)+"] [yes 43210]")
		until := func() string {
			all, err := h.Explained("yes")
			if err != nil || len(all) != 1 {
				return fmt.Sprint(all, err)
			}
			if want := time.Now().Add(10 * time.Minute); !all[0].EndsAt.Equal(want) {
				t.Errorf("it ends at %v, want %v", all[0].EndsAt, want)
			}
			return all[0].Reason
		}
		if want := "for the answer of a page, until " + time.Now().Add(10*time.Minute).Format(time.TimeOnly); until() != want {
			t.Errorf("it is there %s, want %s", until(), want)
		}
		time.Sleep(9 * time.Minute)
		if o, reason := h.open("yes", login(43210)); o != wire.OpenOpened { // which prolongs it
			t.Fatalf("%d %s", o, reason)
		}
		if want := "for the answer of a page, until " + time.Now().Add(10*time.Minute).Format(time.TimeOnly); until() != want {
			t.Errorf("it is there %s, want %s", until(), want)
		}
		time.Sleep(9 * time.Minute)
		h.expect(t, "["+login(43210, 3000)+" "+login(43210)+"] [yes 43210]")
		time.Sleep(time.Minute)
		synctest.Wait()
		h.expect(t, "["+login(43210, 3000)+" "+login(43210)+"] []")

		// What the user takes back, or adds himself, is his.
		if o, reason := h.open("yes", login(43210)); o != wire.OpenOpened {
			t.Fatalf("%d %s", o, reason)
		}
		_, _ = h.remove("yes", "43210", "tcp")
		time.Sleep(time.Minute)
		if _, err := h.add("yes", "43210", "tcp", 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if !strings.HasSuffix(h.has(), "[yes 43210]") {
			t.Errorf("there is %s", h.has())
		}
	})
}

func TestThePortOfACallbackIsTakenBackWhereNoBrowserOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		for _, port := range []uint16{43210, 43211, 43212} {
			h.listen("yes", port, false)
			h.listen("ask", port, false)
		}
		setBrowser := func(err error) { h.mu.Lock(); defer h.mu.Unlock(); h.browser = err }
		setBrowser(errors.New("exit status 1"))
		if o, reason := h.open("yes", login(43210, 43211)); o != wire.OpenRefused || !strings.Contains(reason, "exit status 1") {
			t.Errorf("%d %s", o, reason)
		}
		h.expect(t, "[] []")

		// What is there for another page stays.
		setBrowser(nil)
		if o, reason := h.open("yes", login(43210)); o != wire.OpenOpened {
			t.Fatalf("%d %s", o, reason)
		}
		setBrowser(errors.New("exit status 1"))
		time.Sleep(time.Minute)
		if o, reason := h.open("yes", login(43210, 43211)); o != wire.OpenRefused {
			t.Errorf("%d %s", o, reason)
		}
		h.expect(t, "["+login(43210)+"] [yes 43210]")
		time.Sleep(time.Hour)
		synctest.Wait()

		if o, reason := h.open("ask", login(43212)); o != wire.OpenAsked {
			t.Fatalf("%d %s", o, reason)
		}
		if err := h.Answer(t.Context(), h.Requests()[0].ID, true); err == nil {
			t.Error("a browser that does not open is no error")
		}
		h.expect(t, "["+login(43210)+"] []")
	})
}

func TestNobodyIsAskedAboutAPageWhosePortAProgramOfTheHostHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		h.listen("ask", 43210, false)
		h.setTaken(43210, true)
		if o, reason := h.open("ask", login(43210)); o != wire.OpenRefused || !strings.Contains(reason, "port 43210 of localhost is taken on the host") {
			t.Errorf("at both addresses: %d %s", o, reason)
		}
		h.setTaken(43210, false)
		h.six[43210] = true
		if o, reason := h.open("ask", login(43210)); o != wire.OpenRefused || !strings.Contains(reason, "port 43210 of localhost is taken on the host") {
			t.Errorf("at [::1]: %d %s", o, reason)
		}
		if all := h.Requests(); len(all) != 0 {
			t.Errorf("the user is asked about %+v", all)
		}
	})
}

func TestACallbackToTheVMsOwnNameOrAddressNeedsNothingBroughtOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		h.listen("yes", 3000, true)
		h.listen("yes", 7071, false)
		h.listen("other", 4000, true).Listening = []string{"127.77.3.10:4000"}
		h.listen("ask", 3000, true)
		back := func(to string) string { return page + "?redirect_uri=" + url.QueryEscape(to) }
		for to, want := range map[string]wire.OpenOutcome{
			"http://3000.yes.localhost:7070/cb": wire.OpenOpened, "http://127.77.3.9:3000/cb": wire.OpenOpened,
			"http://4000.other.localhost:7070/cb": wire.OpenRefused, "http://127.77.3.10:4000/": wire.OpenRefused, "http://3001.yes.localhost:7070/": wire.OpenRefused,
			"http://127.77.3.9:3001/": wire.OpenRefused, "http://203.0.113.9:3000/": wire.OpenRefused, "http://127.0.0.2:3000/": wire.OpenRefused,
		} {
			time.Sleep(time.Minute)
			if o, reason := h.open("yes", back(to)); o != want {
				t.Errorf("back to %s: %d %s, want %d", to, o, reason, want)
			}
		}
		if !strings.HasSuffix(h.has(), " []") {
			t.Errorf("there is %s", h.has())
		}
		if o, reason := h.open("ask", back("http://3000.ask.localhost:7070/cb")); o != wire.OpenAsked {
			t.Fatalf("%d %s", o, reason)
		}
		r := h.Requests()[0]
		if err := h.Answer(t.Context(), r.ID, true); err != nil || len(r.Callbacks) != 0 {
			t.Errorf("%+v: %v", r, err)
		}
		// Any other name below localhost is localhost.
		if o, reason := h.open("yes", back("http://app.localhost:7071/cb")); o != wire.OpenOpened || !strings.HasSuffix(h.has(), " [yes 7071]") {
			t.Errorf("%d %s: %s", o, reason, h.has())
		}
	})
}

func TestACallbackThatCannotArriveIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		h.listen("other", 4000, true)
		for _, port := range []uint16{80, 631, 4000, 9229, 9230, 43211, 43212, 43213, 43214, 43215} {
			h.listen("yes", port, false)
		}
		h.taken[631], h.taken[43211] = true, true
		h.forwards["yes"][9229].Reason, h.forwards["yes"][9229].Rule = "ignored by rum.toml:6", "rum.toml:6"
		h.forwards["yes"][9230].Reason = status.Released
		for port, want := range map[int]string{
			80: "below 1024", 631: "below 1024", 4000: "taken", 9229: "rules", 9230: "rules", 43211: "taken", 5555: "no port on which this VM listens",
		} {
			time.Sleep(time.Minute)
			if o, reason := h.open("yes", login(port)); o != wire.OpenRefused || !strings.Contains(reason, want) || strings.Contains(reason, "cupsd") {
				t.Errorf("%d: %d %s", port, o, reason)
			}
		}
		h.expect(t, "[] []")
		for port := 43212; port <= 43215; port++ {
			if o, reason := h.open("yes", login(port)); o != wire.OpenOpened {
				t.Errorf("%d: %d %s", port, o, reason)
			}
		}
		h.listen("yes", 43216, false)
		if o, reason := h.open("yes", login(43216)); o != wire.OpenRefused || !strings.Contains(reason, "already") {
			t.Errorf("a fifth port: %d %s", o, reason)
		}
	})
}
