package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// desktop has xdg-open be a browser that goes where it is sent, and finds login.example at an address of this host.
func desktop(t *testing.T, login string) {
	t.Helper()
	curl := tool(t, "curl", "curl")
	dir := t.TempDir()
	script := "#!/bin/sh\nexec " + curl + " -sSL --max-time 20 --connect-to login.example:80:" + login + " \"$1\"\n"
	if err := os.WriteFile(filepath.Join(dir, "xdg-open"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("DISPLAY", ":99")
}

// logins is a server where somebody logs in: it sends its users back with a code.
func logins(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.FormValue("redirect_uri")+"?code=secret&state="+r.FormValue("state"), http.StatusFound)
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return l.Addr().String()
}

// program logs somebody in, in the guest: it listens on a port of its kernel's choice, and has a page opened.
func (g *guestVM) login(t *testing.T, state string) (authorize string, came <-chan string) {
	t.Helper()
	codes := make(chan string, 1)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		codes <- r.URL.String()
		fmt.Fprint(w, "you are logged in")
	})}
	l := g.listen(t, "127.0.0.1:0")
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	back := fmt.Sprintf("http://%s/callback", l.Addr())
	return "http://login.example/authorize?client_id=1&redirect_uri=" + url.QueryEscape(back) + "&state=" + state, codes
}

// openInGuest is rum-guest-agent open, and its exit status.
func openInGuest(t *testing.T, url string) (said string, status int) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "rum-guest-agent"), "open", url)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// requests asks the API of the agent for the pages that wait, or with a form answers one.
func (h *hostAgent) requests(t *testing.T, method, form string) (code int, all []status.Request) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", h.socket)
	}}
	r, err := http.NewRequest(method, "http://agent/v1/requests?"+form, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var told struct{ Requests []status.Request }
	if res.StatusCode == http.StatusOK {
		if err := json.Unmarshal(text, &told); err != nil {
			t.Fatal(err)
		}
	}
	return res.StatusCode, told.Requests
}

// arrives waits for the next request of the host's browser in the guest.
func arrives(t *testing.T, came <-chan string, want string) {
	t.Helper()
	select {
	case got := <-came:
		if got != want {
			t.Errorf("in the guest arrives %s, want %s", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("waited in vain for %s in the guest", want)
	}
}

// TestALoginThatBeginsInTheGuestCompletesInTheHostsBrowser logs in as tools do that listen on a port of their own for
// the answer, which rules keep in the guest.
func TestALoginThatBeginsInTheGuestCompletesInTheHostsBrowser(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", t.TempDir())
	desktop(t, logins(t))
	g := newGuest(t, "dev")
	h := &hostAgent{socket: filepath.Join(t.TempDir(), "control.sock"), config: filepath.Join(t.TempDir(), "rum.toml")}
	allow := func(setting string) {
		t.Helper()
		if err := os.WriteFile(h.config, []byte("[[vm]]\nname = \"dev\"\nopen_urls = \""+setting+"\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	allow("yes")
	h.program = start(t, "rum-host-agent", "run", "--socket", h.socket, "--config", h.config, "--http", "none", "--vm", g.vm())
	eventually(t, "the link", func() bool {
		st, err := control.NewClient(h.socket).Status(t.Context())
		return err == nil && len(st.VMs) == 1 && st.VMs[0].State == status.Connected
	})
	authorize, came := g.login(t, "one")
	if said, code := openInGuest(t, authorize); code != 0 || said != "opened on the host: login.example\n" {
		t.Fatalf("%d %s", code, said)
	}
	arrives(t, came, "/callback?code=secret&state=one")
	added, err := control.NewClient(h.socket).Forwards(t.Context(), "dev")
	if err != nil || len(added) != 1 || added[0].State != status.Active {
		t.Errorf("brought out are %+v (%v)", added, err)
	}
	for _, ip := range []string{"127.0.0.1", "::1"} {
		c, err := net.Dial("tcp", net.JoinHostPort(ip, added[0].Host))
		if err != nil {
			t.Error(err)
			continue
		}
		_ = c.Close()
	}

	allow("ask")
	if out, err := exec.Command(filepath.Join(bin, "rum-host-agent"), "reload", "--socket", h.socket).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	authorize, came = g.login(t, "two")
	if said, code := openInGuest(t, authorize); code != 0 || !strings.HasPrefix(said, "asked: whether to open login.example") {
		t.Fatalf("%d %s", code, said)
	}
	st, err := control.NewClient(h.socket).Status(t.Context())
	if err != nil || len(st.Requests) != 1 || st.Requests[0].Host != "login.example" || st.Requests[0].URL != "" {
		t.Errorf("the status has %+v (%v)", st.Requests, err)
	}
	_, all := h.requests(t, http.MethodGet, "")
	if len(all) != 1 || all[0].URL != authorize || len(all[0].Callbacks) != 1 {
		t.Fatalf("what waits is %+v, want %s", all, authorize)
	}
	if code, _ := h.requests(t, http.MethodPost, "id="+all[0].ID+"&answer=open"); code != http.StatusOK {
		t.Errorf("accepted: %d", code)
	}
	arrives(t, came, "/callback?code=secret&state=two")
	if code, _ := h.requests(t, http.MethodPost, "id="+all[0].ID+"&answer=open"); code != http.StatusNotFound {
		t.Errorf("accepted twice: %d", code)
	}

	allow("no")
	if out, err := exec.Command(filepath.Join(bin, "rum-host-agent"), "reload", "--socket", h.socket).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if said, code := openInGuest(t, authorize); code != 1 || !strings.Contains(said, "open_urls") {
		t.Errorf("where it is not allowed: %d %s", code, said)
	}
	if log := h.log.String(); strings.Contains(log, "secret") || strings.Contains(log, "state=") {
		t.Errorf("the log has more than hosts:\n%s", log)
	}
}

// TestAPortThatARuleMovesIsBroughtOutForTheAnswerOfAPageAndForAPage has the port at another one of the host, where no
// browser looks for it.
func TestAPortThatARuleMovesIsBroughtOutForTheAnswerOfAPageAndForAPage(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", t.TempDir())
	desktop(t, logins(t))
	g := newGuest(t, "dev")
	authorize, came := g.login(t, "moved")
	back, err := url.Parse(authorize)
	if err != nil {
		t.Fatal(err)
	}
	back, err = url.Parse(back.Query().Get("redirect_uri"))
	if err != nil {
		t.Fatal(err)
	}
	moved := 13000 // which status shows before the guest's own, an ephemeral one
	for ; ; moved++ {
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", moved)); err == nil {
			_ = l.Close()
			break
		}
	}
	h := &hostAgent{socket: filepath.Join(t.TempDir(), "control.sock"), config: filepath.Join(t.TempDir(), "rum.toml")}
	rules := fmt.Sprintf("[[vm]]\nname = \"dev\"\nopen_urls = \"yes\"\n\n[[forward]]\nguest = %s\nhost = %d\n", back.Port(), moved)
	if err := os.WriteFile(h.config, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	h.program = start(t, "rum-host-agent", "run", "--socket", h.socket, "--config", h.config, "--http", "none", "--vm", g.vm())
	eventually(t, "the port is where the rule has it", func() bool {
		st, err := control.NewClient(h.socket).Status(t.Context())
		return err == nil && len(st.VMs) == 1 && len(st.VMs[0].Forwards) > 0 && st.VMs[0].Forwards[0].State == status.Active
	})
	if said, code := openInGuest(t, authorize); code != 0 {
		t.Fatalf("a callback: %d %s", code, said)
	}
	arrives(t, came, "/callback?code=secret&state=moved")

	if _, err := control.NewClient(h.socket).RemoveForward(t.Context(), control.Forward{VM: "dev", Ports: back.Port(), Proto: "tcp"}); err != nil {
		t.Fatal(err)
	}
	if said, code := openInGuest(t, fmt.Sprintf("http://localhost:%s/page", back.Port())); code != 0 {
		t.Fatalf("a page: %d %s", code, said)
	}
	_, all := h.requests(t, http.MethodGet, "")
	if len(all) != 1 {
		t.Fatalf("what waits is %+v", all)
	}
	if code, _ := h.requests(t, http.MethodPost, "id="+all[0].ID+"&answer=open"); code != http.StatusOK {
		t.Errorf("accepted: %d", code)
	}
	arrives(t, came, "/page")
}

func TestWithoutAKeyNoPageIsOpenedForAGuest(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", t.TempDir())
	desktop(t, logins(t))
	g := &guestVM{namespace: newNamespace(t), name: "keyless", socket: filepath.Join(t.TempDir(), "keyless.sock")}
	g.startAgent(t)
	startHost(t, "", g)
	if said, code := openInGuest(t, "http://login.example/"); code != 3 || !strings.Contains(said, "no host is linked that has proved a key") {
		t.Errorf("%d %s", code, said)
	}
}
