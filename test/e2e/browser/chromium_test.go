//go:build e2e

package browser

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// tab is one of a browser.
type tab struct {
	t   *testing.T
	ctx context.Context
}

// open starts a browser with one tab, which ends with the test. The names are those that its resolver has besides.
func open(t *testing.T, names ...string) *tab {
	t.Helper()
	rules := make([]string, len(names))
	for i, name := range names {
		rules[i] = "MAP " + name + " 127.0.0.1"
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("/usr/bin/chromium"), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1280, 900),
		chromedp.Flag("host-resolver-rules", strings.Join(rules, ",")))
	allocator, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	b := &tab{t: t}
	b.ctx, cancel = chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	b.complain()
	return b
}

// another opens a tab in the same browser.
func (b *tab) another() *tab {
	b.t.Helper()
	o := &tab{t: b.t}
	var cancel context.CancelFunc
	o.ctx, cancel = chromedp.NewContext(b.ctx)
	b.t.Cleanup(cancel)
	o.complain()
	return o
}

// complain begins, and shows what scripts do not catch.
func (b *tab) complain() {
	b.t.Helper()
	err := chromedp.Listen(b.ctx, func(event any) {
		if e, ok := event.(*runtime.EventExceptionThrown); ok {
			b.t.Errorf("a script failed: %+v", e.ExceptionDetails)
		}
	})
	if err != nil {
		b.t.Fatalf("%v\ninstall chromium", err)
	}
}

// do carries out what takes a while.
func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body.innerText`))
		b.t.Fatalf("%v, while the page is\n%.4000s", err, text)
	}
}

// call has the browser do what its protocol has a command for.
func call[P, R any](b *tab, command cdp.Command[P, R], parameters P) R {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	result, err := chromedp.Call(ctx, command, parameters)
	if err != nil {
		b.t.Fatal(err)
	}
	return result
}

// before has a script run before those of pages.
func (b *tab) before(script string) {
	b.t.Helper()
	call(b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script})
}

// navigate goes to a URL.
func (b *tab) navigate(url string) {
	b.t.Helper()
	b.do(chromedp.Navigate(url))
}

// eval is what an expression comes to, as text. It may be a promise.
func (b *tab) eval(format string, args ...any) string {
	b.t.Helper()
	expression := fmt.Sprintf(format, args...)
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("Promise.resolve("+expression+").then(String, (e) => 'failed: ' + e)", chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return text
}

// until waits until an expression is true.
func (b *tab) until(what, format string, args ...any) {
	b.t.Helper()
	expression := fmt.Sprintf(format, args...)
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if b.eval("%s", expression) == "true" {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("waited in vain for %s; the page is\n%.4000s", what, b.eval("document.body.innerText"))
		}
	}
}

// row is an expression for the row of a port of a VM, which is undefined where there is none.
func row(vm, port string) string {
	return fmt.Sprintf(`[...document.querySelectorAll('section.vm')].filter((s) => s.querySelector('h2').textContent === %q).flatMap((s) => [...s.querySelectorAll('tbody tr')]).find((r) => r.querySelector('.port').textContent.split(' ')[0] === %q)`, vm, port)
}

// screen sets what the page is shown on.
func (b *tab) screen(width, height int64, scheme string) {
	b.t.Helper()
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 600})
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
}

// picture takes one for docs/, where that is asked for.
func (b *tab) picture(name string) {
	b.t.Helper()
	if !*update {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("../../../docs", name), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// script runs one.
func script(text string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Run(ctx, chromedp.Evaluate[any]("void ("+text+")"))
		return err
	})
}
