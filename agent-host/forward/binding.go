package forward

import (
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/forward/host"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// binding is a set of host addresses of a forward that are bound all or none. A
// forward has one for the addresses of its rule and one for the VM's own address,
// and neither waits for the other. It is guarded by table.mu.
type binding struct {
	*forward
	own    bool        // for the VM's own address
	wanted []host.Addr // in the order of the rule
	// first is the wanted address that failed last. It is tried first, so that a
	// claim does not open and close the others at every attempt.
	first int

	// insteadOf are the addresses of the rule while the wanted ones are others, and because
	// says why they are, or that none was found.
	insteadOf []host.Addr
	because   string

	state  string
	reason string
	// shadowed: the address means another service on the same port of the VM.
	shadowed bool
	told     string   // the reason that the log has heard
	open     *opening // nil unless active

	claimed  bool       // it waits; see [Table.claim]
	heldAt   *host.Addr // a tenant has this address; nil for none
	roomless bool       // it waits for a limit alone, while the forward's other is open
}

// opening is what a binding has while it is active.
type opening struct {
	listeners []host.Listener // of the wanted addresses; the zero one for what is missing
	done      chan struct{}   // closed with the listeners
}

func newBinding(f *forward, own bool, wanted ...host.Addr) *binding {
	return &binding{forward: f, own: own, wanted: wanted}
}

// release closes the host listeners. The kernel resets connections that nobody
// has accepted yet.
func (b *binding) release() {
	if b.open == nil {
		return
	}
	close(b.open.done)
	b.vm.table.host.CloseAll(b.open.listeners...)
	b.open = nil
}

// hosts are the addresses that are bound, or those that are wanted.
func (b *binding) hosts() []string {
	out := make([]string, 0, len(b.wanted))
	for _, a := range b.wanted {
		if b.open == nil || b.listensOn(a) {
			out = append(out, a.String())
		}
	}
	return out
}

func (b *binding) listensOn(a host.Addr) bool {
	i := slices.Index(b.wanted, a)
	return i >= 0 && b.open.listeners[i].Closer != nil
}

// nth is the index of the wanted address that is tried as number n.
func (b *binding) nth(n int) int {
	switch {
	case n == 0:
		return b.first
	case n <= b.first:
		return n - 1
	}
	return n
}

// bindings are those that a forward has.
func (f *forward) bindings() []*binding {
	return slices.DeleteFunc([]*binding{f.main, f.own}, func(b *binding) bool { return b == nil })
}

// state is that of the addresses of the rule.
func (f *forward) state() string { return f.main.state }

// reason is why not every address listens, or others do than the rule has.
func (f *forward) reason() string {
	switch reason, because := f.lacks(), f.main.because; {
	case because == "":
		return reason
	case reason == "":
		return because
	default:
		return because + "; " + reason
	}
}

// lacks is why not every address listens.
func (f *forward) lacks() string {
	switch {
	case f.main.open != nil && f.main.reason == "" && f.decision.Hold > 0 && (f.held || f.expected):
		return status.Held
	case f.own == nil || f.own.open != nil || f.own.shadowed:
		return f.main.reason
	case f.main.open != nil && f.main.reason == "":
		return f.own.reason
	case f.main.state == status.Denied && f.own.state == status.Denied:
		return f.main.reason // what is to be done serves both
	}
	return f.main.reason + "; " + f.own.reason
}
