//go:build e2e

package browser

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestTheBrowserWalksThroughThePage is what its user does with it.
func TestTheBrowserWalksThroughThePage(t *testing.T) {
	dev, other := newGuest(t, "dev", 1), newGuest(t, "Other_VM", 2)
	holder(t, "127.0.0.1:5432")
	dev.serve("vite[1741]", 5173)
	dev.announce("postgres[1801]", 5432)
	h := startHost(t, dev, other)
	b := open(t)
	b.screen(1280, 900, "light")

	b.navigate(h.link())
	b.until("the VMs", `document.querySelectorAll('section.vm').length === 2`)
	if hash := b.eval("location.href"); strings.Contains(hash, "#") {
		t.Errorf("the token is in %s still", hash)
	}
	if cookies := b.eval("document.cookie"); cookies != "" {
		t.Errorf("there are cookies: %s", cookies)
	}

	// A claim is seen to first, and tells who has the port.
	b.until("the claim", `document.querySelector('#problems').textContent.includes('127.0.0.1:5432 is held by browser.test[')`)
	b.until("the claim to be first", `%s === document.querySelector('section.vm tbody tr')`, row("dev", "5432/tcp"))

	// A forward appears, and is explained a click away.
	dev.serve("node[1900]", 3000)
	b.until("the forward", `!!%s`, row("dev", "3000/tcp"))
	b.do(script(row("dev", "3000/tcp")+".querySelector('.port').focus()"), chromedp.KeyEvent(kb.Enter))
	b.until("the chain", `document.querySelectorAll('#panel .chains li').length >= 5`)
	if text := b.eval(`document.querySelector('#panel').innerText`); !strings.Contains(text, "dev 3000/tcp") || !strings.Contains(text, "It works, as far as the agent knows") || !strings.Contains(text, "listener: node[1900] listens on 127.1.0.1:3000") {
		t.Errorf("explained is:\n%s", text)
	}
	b.do(chromedp.KeyEvent(kb.Escape))
	b.until("the panel to close, and the focus to be back", `!document.querySelector('#panel').open && document.activeElement === %s.querySelector('.port')`, row("dev", "3000/tcp"))

	// By name there is a site for each VM, with cookies of its own.
	other.serve("node[77]", 3000)
	b.until("the other's", `!!%s`, row("Other_VM", "3000/tcp"))
	href := b.eval(`%s.querySelector('a').href`, row("Other_VM", "3000/tcp"))
	if want := h.url("3000.other-vm.localhost", "/"); href != want {
		t.Errorf("it is to be opened at %s, want %s", href, want)
	}
	site := b.another()
	site.navigate(h.url("3000.dev.localhost", "/a"))
	if text := site.eval(`document.body.textContent + (document.cookie = "who=dev")`); text != "dev /awho=dev" {
		t.Errorf("the site of dev is %q", text)
	}
	if text := site.eval(`new Promise((done, failed) => { const s = new WebSocket("ws://" + location.host + "/socket"); s.onopen = () => s.send("there and back"); s.onmessage = (m) => done(m.data); s.onerror = failed })`); text != "there and back" {
		t.Errorf("a WebSocket brings %q", text)
	}
	if text := site.eval(`new Promise((done, failed) => { const s = new EventSource("/events"); s.onmessage = (m) => { s.close(); done(m.data) }; s.onerror = failed })`); text != "event of dev" {
		t.Errorf("an event stream brings %q", text)
	}
	site.navigate(href)
	if text := site.eval(`document.body.textContent + "," + document.cookie`); text != "Other_VM /," {
		t.Errorf("the site of the other is %q", text)
	}
	site.navigate(h.url("3000.dev.localhost", "/"))
	if text := site.eval(`document.cookie`); text != "who=dev" {
		t.Errorf("the cookie of dev is %q", text)
	}
	if *update { // the pictures are of a page that has been there for a while
		site.eval(`(async () => { for (const end = Date.now() + 40000; Date.now() < end;) { await fetch("/" + "x".repeat(Math.random() * 9000)); await new Promise((done) => setTimeout(done, 20)) } })()`)
	}
	b.until("what it carried", `/^\d\/[1-9]/.test(%s.querySelector('.c-conns').textContent)`, row("dev", "3000/tcp"))

	// A forward is added, removed, and a port released.
	b.do(chromedp.Click(chromedp.CSS("#add-open")), chromedp.SetValue(chromedp.CSS(`#add-form [name="vm"]`), "dev"), chromedp.SendKeys(chromedp.CSS(`#add-form [name="guest"]`), "3000"),
		chromedp.SendKeys(chromedp.CSS(`#add-form [name="host"]`), "9999"), chromedp.KeyEvent(kb.Enter))
	b.until("what was added", `document.querySelector('#added').textContent.includes('9999:3000/tcp of dev: active')`)
	b.until("its address", `(%s || document.body).textContent.includes('127.0.0.1:9999')`, row("dev", "3000/tcp"))
	b.screen(1280, 900, "light")
	b.picture("page.png")
	b.screen(1280, 900, "dark")
	b.picture("page-dark.png")
	b.screen(360, 780, "light")
	if wide := b.eval(`document.documentElement.scrollWidth`); wide != "360" {
		t.Errorf("on a phone, the page is %s wide", wide)
	}
	b.picture("page-phone.png")
	b.screen(1280, 900, "light")
	b.do(chromedp.Click(chromedp.CSS("#added button")))
	b.until("it to be taken back", `document.querySelector('#added').hidden`)
	b.until("the port at its place again", `!!%[1]s && %[1]s.textContent.includes('127.0.0.1:3000')`, row("dev", "3000/tcp"))
	b.do(script(row("dev", "3000/tcp") + ".querySelector('.port').click()"))
	b.until("the chain", `document.querySelectorAll('#panel .chains li').length >= 4`)
	b.picture("page-explain.png")
	b.do(chromedp.Click(chromedp.CSS("#release")))
	b.until("the port to be released", `%s.querySelector('.state').textContent === 'ignored'`, row("dev", "3000/tcp"))
	site.navigate(h.url("3000.dev.localhost", "/"))
	if text := site.eval(`document.body.innerText`); !strings.Contains(text, "Nothing is called 3000.dev.localhost") || !strings.Contains(text, fmt.Sprintf("5173.dev.localhost:%d", h.port)) {
		t.Errorf("a port that is not forwarded is:\n%s", text)
	}

	// Somebody looks for a port.
	b.do(chromedp.SendKeys(chromedp.CSS("#find"), "vite"))
	b.until("what is found", `[...document.querySelectorAll('section.vm tbody tr')].filter((r) => r.checkVisibility()).length === 1`)
	b.do(script(`document.querySelector('#find').value = "", document.querySelector('#find').dispatchEvent(new Event('input'))`))

	// A VM goes down, and comes back.
	other.stop()
	b.until("the VM to be down", `[...document.querySelectorAll('section.vm')][0].textContent.includes('down') && document.querySelector('#problems').textContent.includes('Other_VM is down')`)
	other.start()
	b.until("the VM to be back", `!document.querySelector('#problems').textContent.includes('Other_VM')`)

	// A reload goes on, and an agent that has ended is said.
	b.do(chromedp.Reload())
	b.until("the VMs", `document.querySelectorAll('section.vm').length === 2`)
}

// TestEveryControlHasANameAndTheKeyboardReachesIt is what a screen reader and a keyboard need.
func TestEveryControlHasANameAndTheKeyboardReachesIt(t *testing.T) {
	dev := newGuest(t, "dev", 1)
	dev.serve("vite[1741]", 5173)
	h := startHost(t, dev)
	b := open(t)
	b.navigate(h.link())
	b.until("the forward", `!!%s`, row("dev", "5173/tcp"))
	b.do(script(row("dev", "5173/tcp") + ".querySelector('.port').click()"))
	b.until("the chain", `document.querySelectorAll('#panel .chains li').length >= 5`)
	for _, control := range nameless(b) {
		t.Errorf("a control without a name: %s", control)
	}
	b.do(chromedp.KeyEvent(kb.Escape))
	for _, control := range nameless(b) {
		t.Errorf("a control without a name: %s", control)
	}
	reached := make(map[string]bool)
	b.do(script(`document.activeElement.blur()`))
	for range 12 {
		b.do(chromedp.KeyEvent(kb.Tab))
		reached[b.eval(`document.activeElement.id || document.activeElement.className || document.activeElement.tagName`)] = true
	}
	for _, want := range []string{"skip", "find", "add-open", "port", "A"} {
		if !reached[want] {
			t.Errorf("the keyboard does not reach %s; it reaches %v", want, reached)
		}
	}
}
