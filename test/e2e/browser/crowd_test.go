//go:build e2e

package browser

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"
)

// TestThePageOfTwoHundredVMsIsWhole prints how fluid it is: what it needs for an event, and its longest task.
func TestThePageOfTwoHundredVMsIsWhole(t *testing.T) {
	const vms, each = 200, 10
	all := make([]*guest, vms)
	for i := range all {
		all[i] = newGuest(t, fmt.Sprintf("vm%d", i), i+1)
		var ports []uint16
		for p := range each {
			ports = append(ports, uint16(3000+p))
		}
		all[i].announce("node[812]", ports...)
	}
	h := startHost(t, all...)
	b := open(t)
	b.before(`
		window.busy = 0; // for how long nothing else came in between, at most, in milliseconds
		let before = performance.now();
		setInterval(() => { const now = performance.now(); window.busy = Math.max(window.busy, now - before); before = now }, 4);
		new MutationObserver((all) => { for (const m of all) for (const n of m.addedNodes) if (n.tagName === "TR" && window.wanted) {
			const port = n.querySelector(".port").textContent;
			if (port === window.wanted) { window.seen = Date.now(); window.wanted = "" }
		} }).observe(document, {subtree: true, childList: true});
	`)
	b.navigate(h.link())
	b.until("all forwards", `document.querySelectorAll('section.vm tbody tr').length === %d`, vms*each)
	b.until("all VMs", `document.querySelector('#summary').textContent.startsWith("%d VMs")`, vms)
	longest := func() float64 {
		t.Helper()
		n, err := strconv.ParseFloat(b.eval(`[window.busy, window.busy = 0][0]`), 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	t.Logf("longest task until all is there: %.0f ms", longest())
	var most time.Duration
	for i := range 10 {
		port := uint16(5000 + i)
		b.eval(`window.wanted = "%d/tcp", window.seen = 0`, port)
		began := time.Now()
		all[i*17].announce("late[1]", port)
		b.until("the new port", `window.seen > 0`)
		seen, err := strconv.ParseInt(b.eval(`window.seen`), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, time.UnixMilli(seen).Sub(began))
	}
	t.Logf("an event is in the document after %v at most; longest task: %.0f ms", most, longest())

	// That a long one would be seen shows one.
	b.eval(`setTimeout(() => { for (const end = Date.now() + 100; Date.now() < end;); })`)
	b.until("a long task to be seen", `window.busy >= 100`)
	longest()

	// And when something happens to all of them at once.
	var wg sync.WaitGroup
	for _, g := range all {
		wg.Go(func() { g.announce("late[1]", 6000) })
	}
	wg.Wait()
	b.until("all new ports", `document.querySelectorAll('section.vm tbody tr').length === %d`, vms*(each+1)+10)
	t.Logf("longest task while each VM has a new port: %.0f ms", longest())
}
