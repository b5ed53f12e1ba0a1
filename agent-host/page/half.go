package page

import (
	"net"
	"sync"
)

// half passes on that a client sends no more. Whether it has gone, or waits for its answer, is for the service to
// judge, as it is without anything between them. It is passed on for requests that [plain] sends: a [net/http.Transport]
// does not tell when the service has the whole of a request.
type half struct {
	mu      sync.Mutex
	ended   bool     // the client sends no more
	service net.Conn // has the whole request; nil while none has
	passed  bool     // service was told
}

// end is called when the client sends no more.
func (h *half) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	h.pass()
}

// asked is called when a service has the request.
func (h *half) asked(service net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.service, h.passed = service, false
	h.pass()
}

// answered is called when a service has answered. It reports whether that can be asked again.
func (h *half) answered() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.service = nil
	return !h.passed
}

// wasPassed reports whether the service was told.
func (h *half) wasPassed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.passed
}

// pass needs h.mu.
func (h *half) pass() {
	if c, ok := h.service.(interface{ CloseWrite() error }); ok && h.ended && !h.passed {
		h.passed = true
		_ = c.CloseWrite() // what fails is seen by who reads
	}
}
