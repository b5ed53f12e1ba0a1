//go:build e2e

package browser

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// askedAbout is a VM whose pages the user of a host is asked about, and the file with the URL that was opened last.
func askedAbout(t *testing.T) (dev *guest, h *host, opened string) {
	t.Helper()
	dir := t.TempDir()
	opened = filepath.Join(dir, "opened")
	if err := os.WriteFile(filepath.Join(dir, "xdg-open"), []byte("#!/bin/sh\nprintf %s \"$1\" >"+opened+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("DISPLAY", ":99")
	dev = newGuestWithKey(t, "dev", 1, bytes.Repeat([]byte{7}, 32))
	h = startHost(t, dev)
	if err := os.MkdirAll(filepath.Join(h.dir, "rum-agent"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.dir, "rum-agent", "rum.toml"), []byte("[[vm]]\nname = \"dev\"\nopen_urls = \"ask\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.client.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	return dev, h, opened
}

// TestALoginThatAVMBeginsIsAskedAboutOnThePageAndCompletesInTheBrowser has a program of a VM that waits on a port of its own
// for the answer of a page where its user logs in.
func TestALoginThatAVMBeginsIsAskedAboutOnThePageAndCompletesInTheBrowser(t *testing.T) {
	dev, h, opened := askedAbout(t)

	const port = 43210
	codes := make(chan string, 1)
	l, err := net.Listen("tcp", netip.AddrPortFrom(dev.ip, port).String())
	if err != nil {
		t.Fatal(err)
	}
	tool := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/callback" {
			codes <- r.FormValue("code")
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>done</title>you are logged in to dev")
	})}
	go func() { _ = tool.Serve(l) }()
	defer tool.Close()
	dev.announceEphemeral("gh[99]", port)
	logins := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.FormValue("redirect_uri")+"?code=secret", http.StatusFound)
	}))
	defer logins.Close()
	b := open(t, "login.example")
	b.navigate(h.link())
	b.until("the VM", `document.querySelectorAll('section.vm').length === 1`)

	at := strings.Replace(logins.URL, "127.0.0.1", "login.example", 1)
	ask := func(path string) wire.OpenURLAnswerMessage {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		a, err := dev.server.OpenURL(ctx, 0, at+path+"?redirect_uri="+url.QueryEscape(fmt.Sprintf("http://127.0.0.1:%d/callback", port)))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := ask("/<img/src=x/onerror=alert(1)>"); a.Outcome != wire.OpenAsked {
		t.Fatalf("%+v", a)
	}
	b.until("the question", `document.querySelector('#asked strong')?.textContent === "login.example" && document.querySelector('#asked').innerText.includes("dev asks to open a page of")`)
	if n := b.eval(`document.querySelectorAll('#asked img').length`); n != "0" {
		t.Error("the URL is more than text")
	}
	if all := nameless(b); len(all) > 0 {
		t.Errorf("without a name are %v", all)
	}
	press := func(name string) {
		t.Helper()
		b.until("the button", `[...document.querySelectorAll('#asked button')].every((b) => b.getAttribute("aria-disabled") !== "true")`)
		b.do(script(fmt.Sprintf(`[...document.querySelectorAll('#asked button')].find((b) => b.textContent === %q).focus()`, name)), chromedp.KeyEvent(kb.Enter))
		b.until("the question to go", `document.querySelector('#asked').hidden`)
	}
	press("Refuse")
	if _, err := os.Stat(opened); err == nil {
		t.Error("what the user has refused is opened")
	}

	if a := ask("/authorize"); a.Outcome != wire.OpenAsked {
		t.Fatalf("%+v", a)
	}
	b.until("the second question", `document.querySelector('#asked code')?.textContent.includes("/authorize")`)
	press("Open")
	b.until("how long the port is there", `/^43210:43210.tcp of dev: active, for the answer of a page, until .*[0-9]:[0-9]{2}/.test(document.querySelector('#added li')?.textContent)`)
	text, err := os.ReadFile(opened)
	if err != nil {
		t.Fatal(err)
	}
	site := b.another()
	site.navigate(string(text))
	site.until("the login to complete", `document.body.innerText === "you are logged in to dev"`)
	if code := <-codes; code != "secret" {
		t.Errorf("in the VM arrives %q", code)
	}
}

// TestAClickThatWasMeantForWhatWasThereBeforeOpensNoPage has somebody click wherever a button comes to be, at once.
func TestAClickThatWasMeantForWhatWasThereBeforeOpensNoPage(t *testing.T) {
	dev, h, opened := askedAbout(t)
	b := open(t)
	b.navigate(h.link())
	b.until("the VM", `document.querySelectorAll('section.vm').length === 1`)
	b.eval(`{clicks: (() => {
		window.clicks = window.answers = 0;
		const real = window.fetch;
		window.fetch = (url, options) => {
			if (options.method === "POST") window.answers++;
			return real(url, options);
		};
		new MutationObserver(() => {
			for (const button of document.querySelectorAll('#asked button')) if (button.textContent === "Open") { window.clicks++; button.click(); }
		}).observe(document.querySelector('#asked ul'), {childList: true});
	})()}`)
	ask := func(path string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if a, err := dev.server.OpenURL(ctx, 0, "https://site.example/"+path); err != nil || a.Outcome != wire.OpenAsked {
			t.Fatal(a, err)
		}
	}
	none := func(when string, clicks, waiting int, answers string) {
		t.Helper()
		b.until("the clicks, and the buttons to be there for others", `window.clicks >= %d && document.querySelectorAll('#asked li').length === %d && [...document.querySelectorAll('#asked button')].every((b) => b.getAttribute("aria-disabled") !== "true")`, clicks, waiting)
		if n := b.eval(`window.answers`); n != answers {
			t.Errorf("%s a click is an answer: there are %s, want %s", when, n, answers)
		}
	}
	ask("first")
	none("where a question appears", 1, 1, "0")
	ask("second")
	none("where another appears", 3, 2, "0")
	b.eval(`[...document.querySelectorAll('#asked button')].find((b) => b.textContent === "Refuse").click()`)
	none("where one moves up", 4, 1, "1")
	// Another window was over it.
	b.eval(`(window.dispatchEvent(new Event("focus")), document.querySelector('#asked .open').click())`)
	none("where the window comes to the front", 4, 1, "1")
	b.eval(`document.querySelector('#asked .open').click()`)
	b.until("the question to go", `document.querySelector('#asked').hidden`)
	if text, err := os.ReadFile(opened); string(text) != "https://site.example/second" {
		t.Errorf("who clicks later has %q opened, %v", text, err)
	}
}
