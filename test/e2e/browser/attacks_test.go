//go:build e2e

package browser

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestAForeignPageAFrameAndADNSNameThatLeadsHereGetNothing has the browser of somebody with a session visit a site
// that means ill.
func TestAForeignPageAFrameAndADNSNameThatLeadsHereGetNothing(t *testing.T) {
	dev := newGuest(t, "secret-vm", 1)
	dev.serve("node[1]", 3000)
	h := startHost(t, dev)
	b := open(t, "evil.example", "rebound.example")
	b.navigate(h.link())
	b.until("the forward", `!!%s`, row("secret-vm", "3000/tcp"))

	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>evil</title><body>")
	}))
	defer srv.Close()
	evil := b.another()
	evil.navigate(strings.Replace(srv.URL, "127.0.0.1", "evil.example", 1))
	for _, target := range []string{h.url("localhost", "/v1/status"), h.url("127.0.0.1", "/"), h.url("localhost", "/page.js"), h.url("nothing.localhost", "/"), h.url("3000.secret-vm.localhost", "/")} {
		if text := evil.eval(`fetch(%q).then((a) => a.text())`, target); !strings.HasPrefix(text, "failed:") {
			t.Errorf("a page of another origin reads %s: %q", target, text)
		}
	}
	for _, request := range []string{`{method: "POST", mode: "no-cors", body: "x"}`, `{method: "POST", mode: "no-cors", credentials: "include"}`} {
		if text := evil.eval(`fetch(%q, %s).then((a) => a.type + a.status)`, h.url("localhost", "/v1/release?port=3000"), request); text != "opaque0" && !strings.HasPrefix(text, "failed:") {
			t.Errorf("a page of another origin asks for something to be done: %s", text)
		}
	}
	// A frame of it is shown to nobody: what is in it is an error of the browser's, whose origin is its own.
	framed := evil.eval(`new Promise((done) => { const f = document.createElement("iframe"); f.src = %q; f.onload = () => { try { done("it has " + f.contentDocument.body.innerHTML.length) } catch (e) { done(e.name) } }; document.body.append(f) })`, h.url("localhost", "/"))
	if framed != "it has 0" && framed != "SecurityError" && !strings.HasPrefix(framed, "failed:") && !strings.Contains(framed, "TypeError") {
		t.Errorf("a frame with the page: %s", framed)
	}
	opened := evil.eval(`new Promise((done) => { const w = window.open(%q); setTimeout(() => { try { done(w ? "it has " + w.document.body.innerHTML.length : "none") } catch (e) { done(e.name) } }, 500) })`, h.url("localhost", "/"))
	if strings.HasPrefix(opened, "it has") && opened != "it has 0" {
		t.Errorf("a window with the page: %s", opened)
	}

	// A name of the attacker's that leads to this address now (DNS rebinding) is of its own origin there.
	rebound := b.another()
	rebound.navigate(h.url("rebound.example", "/"))
	if text := rebound.eval(`document.body.innerText`); !strings.Contains(text, "nothing of this name is here") {
		t.Errorf("a name that leads here finds %q", text)
	}
	if text := rebound.eval(`fetch("/v1/status").then((a) => a.status + " " + a.headers.get("content-type"))`); !strings.HasPrefix(text, "421 text/plain") {
		t.Errorf("and gets %s", text)
	}

	// Without a link there is no session, and nothing is shown.
	other := open(t)
	other.navigate(h.url("localhost", "/"))
	other.until("the notice", `document.querySelector('#notice').textContent.includes('rum-host-agent dashboard')`)
	if text := other.eval(`document.documentElement.outerHTML`); strings.Contains(text, "secret-vm") {
		t.Errorf("without a session the page is\n%s", text)
	}
	other.navigate(h.url("localhost", "/#"+strings.Repeat("A", 43)))
	other.do()
	if text := other.eval(`fetch("/v1/status", {headers: {Authorization: "Bearer " + "A".repeat(43)}}).then((a) => a.status)`); text != "401" {
		t.Errorf("a token that nobody gave gets %s", text)
	}
	// What the service of a VM shows has neither the session nor the page.
	site := b.another()
	site.navigate(h.url("3000.secret-vm.localhost", "/"))
	if text := site.eval(`sessionStorage.length + " " + localStorage.length + document.cookie`); text != "0 0" {
		t.Errorf("the site of a VM has %s", text)
	}
	if text := site.eval(`fetch(%q).then((a) => a.status)`, h.url("localhost", "/v1/status")); !strings.HasPrefix(text, "failed:") {
		t.Errorf("the site of a VM reads the API: %s", text)
	}
}

// TestWhoHadThePagesPortBeforeTheAgentGetsNothing leaves all in the browser that a site may: files to be kept for a
// year, under the names of the page's, and a worker that answers for the site.
func TestWhoHadThePagesPortBeforeTheAgentGetsNothing(t *testing.T) {
	dev := newGuest(t, "secret-vm", 1)
	dev.announce("node[1]", 3000)
	l, err := net.Listen("tcp", "127.0.0.1:7070")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=31536000, immutable")
		switch r.URL.Path {
		case "/worker.js":
			w.Header().Set("Content-Type", "text/javascript")
			fmt.Fprint(w, `self.addEventListener("install", () => self.skipWaiting());
				self.addEventListener("activate", (e) => e.waitUntil(clients.claim()));
				self.addEventListener("fetch", (e) => e.respondWith(new Response("<!doctype html><title>stolen</title>", {headers: {"Content-Type": "text/html"}})))`)
		case "/page.js", "/api.js":
			w.Header().Set("Content-Type", "text/javascript")
			fmt.Fprint(w, `document.title = "stolen"`)
		default:
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, `<!doctype html><title>before</title><script src="/page.js"></script><script src="/api.js"></script>`)
		}
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	defer func() { _ = srv.Close(); <-done }()
	b := open(t)
	b.navigate("http://localhost:7070/")
	if text := b.eval(`navigator.serviceWorker.register("/worker.js").then(() => navigator.serviceWorker.ready).then(() => "ready")`); text != "ready" {
		t.Fatalf("the worker: %s", text)
	}
	_ = srv.Close()
	<-done
	h := startHost(t, dev)
	b.navigate("http://localhost:7070/")
	if text := b.eval(`document.title`); text != "stolen" {
		t.Errorf("what was left in the browser for localhost does nothing: %q", text)
	}
	b.navigate(h.link())
	b.until("the forward", `!!%s`, row("secret-vm", "3000/tcp"))
	if text := b.eval(`document.title`); text == "stolen" {
		t.Error("the link leads to what was left in the browser")
	}
}

func TestWhatAGuestSaysIsTextOnThePage(t *testing.T) {
	dev := newGuest(t, "dev", 1)
	process := `<img src=x onerror=document.title="owned">[1]`
	dev.announce(process, 3000)
	dev.announce(`"><script>document.title="owned"</script>`, 3001)
	h := startHost(t, dev)
	b := open(t)
	b.navigate(h.link())
	b.until("the process", `!!%[1]s && %[1]s.querySelector('.c-process').textContent === %[2]q`, row("dev", "3000/tcp"), process)
	b.until("the event", `document.querySelector('#happened').textContent.includes(%q)`, process)
	b.eval(`%s.querySelector('.port').click()`, row("dev", "3000/tcp"))
	b.until("the chain", `document.querySelector('#panel .chains').textContent.includes(%q)`, process)
	if text := b.eval(`document.title + document.querySelectorAll('main img, main script, dialog img').length`); text != "rum agents0" {
		t.Errorf("what the guest said became %s", text)
	}
	// Nor could it, were it put in otherwise.
	if text := b.eval(`new Promise((done) => { try { document.querySelector('main').innerHTML = '<b>'; done("put in") } catch (e) { done(e.name) } })`); text != "TypeError" {
		t.Errorf("HTML is %s", text)
	}
}
