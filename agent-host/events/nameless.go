package events

import "time"

// nameWithin is how long an event may wait for the name of a process, which a guest tells a
// moment after the port: less than anybody notices.
const nameWithin = 10 * time.Millisecond

// subject is what an event is about.
type subject struct {
	vm, proto string
	port      uint16
	socket    string
}

func (e *Event) subject() subject { return subject{e.VM, e.Proto, e.Port, e.Socket} }

// ofVM reports whether an event is about all of a VM.
func (e *Event) ofVM() bool { return e.Port == 0 && e.Socket == "" }

// nameless reports whether an event waits for the name of a process.
func (e *Event) nameless() bool { return e.Kind == Forwarding && e.Process == "" }

// hold has an event wait, unless too many of its VM's do already. It needs h.mu.
func (h *History) hold(e Event) bool {
	if v := h.of(e.VM); v.held < Kept {
		v.held++
		h.held[e.subject()] = e
		time.AfterFunc(nameWithin, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.letGo(e.subject(), "")
		})
		return true
	}
	return false
}

// letGo takes in what waits about a subject, if anything does. It needs h.mu.
func (h *History) letGo(about subject, process string) {
	e, ok := h.held[about]
	if !ok {
		return
	}
	delete(h.held, about)
	h.of(e.VM).held--
	e.Process = process
	h.take(e)
}

// Named tells whose the listener is that an event is about which has just been published.
func (h *History) Named(e Event) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.letGo(e.subject(), e.Process)
}
