package forward

import (
	"net"
	"time"
)

// Delays after an accept that failed, mostly for want of descriptors. The
// connection waits in the kernel's queue meanwhile.
const (
	acceptBackoffMin = 5 * time.Millisecond
	acceptBackoffMax = time.Second
)

// accept hands connections over until done is closed. It does nothing that could
// block it.
func (f *forward) accept(l net.Listener, done <-chan struct{}) {
	t := f.vm.table
	var delay time.Duration
	for {
		c, err := l.Accept()
		if err == nil {
			delay = 0
			t.wg.Go(func() { f.serve(c.(client)) })
			continue
		}
		select {
		case <-done:
			return
		default:
		}
		f.fail(err)
		if delay == 0 {
			t.log.Warn("cannot accept connections", "vm", f.vm.name, "port", f.key.port, "error", err)
		}
		delay = min(max(2*delay, acceptBackoffMin), acceptBackoffMax)
		select {
		case <-done:
			return
		case <-time.After(delay):
		}
	}
}
