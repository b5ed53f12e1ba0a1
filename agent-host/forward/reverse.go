package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/dial"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// ReverseRule is a port or a unix socket that is to be open in a guest and to
// reach the host.
type ReverseRule struct {
	// Guest are the addresses to listen on, all of one port, or GuestSocket is
	// the absolute path of a socket.
	Guest       []netip.AddrPort
	GuestSocket string
	// Host are tried in order until one answers, or HostSocket is the path of
	// a socket.
	Host       []netip.AddrPort
	HostSocket string
	// Rule is the name of the rule, and Label what it is for in the user's words.
	Rule, Label string
}

// key tells rules apart that need different listeners.
func (r ReverseRule) key() string {
	return fmt.Sprintf("%v %q %v %q", r.Guest, r.GuestSocket, r.Host, r.HostSocket)
}

// Reverses tells what is to be open in the VM of that name. It is called under a
// lock.
type Reverses func(vm string) []ReverseRule

// reverse is a rule in force for a VM.
type reverse struct {
	vm   *VM
	rule ReverseRule
	ends []*reverseEnd // guarded by table.mu

	counters relay.Counters
	active   atomic.Int64
	total    atomic.Uint64
	lastErr  serve.LastError
}

// reverseEnd is one listener in the guest. What is said of it is guarded by
// table.mu.
type reverseEnd struct {
	*announce.Reverse
	heard  bool // since there is this link
	over   bool // more than the guest is asked for
	state  wire.ReverseState
	reason string
}

// SetReverse replaces what is to be open in guests. Listeners that stay the same
// are left alone, and connections go on.
func (t *Table) SetReverse(reverses Reverses) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reverses = reverses
	for _, v := range t.vms {
		v.decideReverse()
	}
}

// decideReverse needs table.mu.
func (v *VM) decideReverse() {
	if v.table.reverses == nil {
		v.reverse = nil
	} else {
		old := v.reverse
		v.reverse = nil
		for _, rule := range v.table.reverses(v.name) {
			i := slices.IndexFunc(old, func(r *reverse) bool { return r.rule.key() == rule.key() })
			if i < 0 {
				v.reverse = append(v.reverse, newReverse(v, rule))
				continue
			}
			old[i].rule.Rule, old[i].rule.Label = rule.Rule, rule.Label
			v.reverse = append(v.reverse, old[i])
		}
	}
	v.tellReverse(v.guest.Route().Link)
}

func newReverse(v *VM, rule ReverseRule) *reverse {
	r := &reverse{vm: v, rule: rule}
	var listen []wire.Target
	for _, a := range rule.Guest {
		listen = append(listen, wire.Target{Network: "tcp", Addrs: []netip.AddrPort{a}})
	}
	if rule.GuestSocket != "" {
		listen = []wire.Target{wire.UnixTarget(rule.GuestSocket)}
	}
	for _, at := range listen {
		e := &reverseEnd{}
		e.Reverse = &announce.Reverse{
			Listen: at, Dial: r.dial, Ended: r.ended, Counters: &r.counters,
			State: func(s wire.ReverseState, reason string) { r.heard(e, s, reason) },
		}
		r.ends = append(r.ends, e)
	}
	return r
}

// tellReverse tells a link what is to be open in its guest. It needs table.mu.
func (v *VM) tellReverse(l *serve.Link) {
	var all []*announce.Reverse
	for _, r := range v.reverse {
		if r.leadsToControl() {
			continue
		}
		for _, e := range r.ends {
			if e.over = len(all) == wire.MaxReverse; !e.over {
				all = append(all, e.Reverse)
			}
		}
	}
	if l == nil || l.Reverse == nil {
		return
	}
	if err := l.Reverse(all); err != nil {
		v.table.log.Warn("reverse rules are not in force", "vm", v.name, "error", err)
	}
}

// forgetReverse takes in that another link is to be told, or none. It needs
// table.mu.
func (v *VM) forgetReverse() {
	for _, r := range v.reverse {
		for _, e := range r.ends {
			e.heard = false
		}
	}
}

// heard takes in how a listener in the guest is.
func (r *reverse) heard(e *reverseEnd, s wire.ReverseState, reason string) {
	t := r.vm.table
	t.mu.Lock()
	defer t.mu.Unlock()
	e.heard, e.state, e.reason = true, s, reason
	if s == wire.ReverseListening {
		t.log.Info("port open in the guest", "vm", r.vm.name, "guest", e.Listen, "host", r.hosts())
	} else {
		t.log.Warn("port not open in the guest yet", "vm", r.vm.name, "guest", e.Listen, "reason", reason)
	}
}

// dial connects to the service on the host.
func (r *reverse) dial(ctx context.Context) (relay.Conn, error) {
	r.total.Add(1)
	r.active.Add(1)
	if r.rule.HostSocket != "" {
		c, err := dial.Socket(ctx, r.rule.HostSocket)
		if err != nil {
			return nil, err
		}
		// The kernel knows it by the path that it was bound to, whatever leads there.
		if own := r.vm.table.cfg.ControlSocket; own != "" && c.RemoteAddr().String() == own {
			c.Close()
			return nil, errControl
		}
		return relay.Unix(c), nil
	}
	// Keep-alives between sockets of one kernel find out nothing.
	d := net.Dialer{KeepAlive: -1, Control: relay.ControlTCP}
	var errs []error
	for _, a := range r.rule.Host {
		c, err := d.DialContext(ctx, "tcp", a.String())
		if err == nil {
			return relay.TCP(c.(*net.TCPConn)), nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// errControl is why a rule is not in force that would let a guest command this program.
var errControl = errors.New("this is the agent's own control socket, which no guest is given: remove the rule, or name another socket")

// leadsToControl reports whether a rule's socket is the control socket.
func (r *reverse) leadsToControl() bool {
	at, own := r.rule.HostSocket, r.vm.table.cfg.ControlSocket
	if at == "" || own == "" {
		return false
	}
	a, errA := os.Stat(at)
	b, errB := os.Stat(own)
	return at == own || errA == nil && errB == nil && os.SameFile(a, b)
}

func (r *reverse) ended(err error) {
	r.active.Add(-1)
	if err != nil {
		if !serve.Ordinary(err) {
			r.lastErr.Note(err)
		}
		r.vm.table.log.Debug("connection from the guest failed", "vm", r.vm.name, "rule", r.rule.Rule, "error", err)
	}
}

func (r *reverse) hosts() []string {
	if r.rule.HostSocket != "" {
		return []string{r.rule.HostSocket}
	}
	return texts(r.rule.Host)
}

func texts(addrs []netip.AddrPort) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String()
	}
	return out
}

// status needs table.mu.
func (r *reverse) status() status.Forward {
	st := status.Forward{
		Reverse: true, Proto: "tcp", Rule: r.rule.Rule, Label: r.rule.Label, Guest: texts(r.rule.Guest), Host: r.hosts(), Listening: []string{},
		ConnectionsActive: r.active.Load(), ConnectionsTotal: r.total.Load(),
		BytesIn: r.counters.In.Load(), BytesOut: r.counters.Out.Load(),
	}
	if r.rule.GuestSocket != "" {
		st.Proto, st.Guest = policy.ProtoUnix, []string{r.rule.GuestSocket}
	} else {
		st.Port = r.rule.Guest[0].Port()
	}
	if st.State, st.Reason = r.state(); st.State == status.Active {
		st.Path = stream.PathMux
	}
	r.lastErr.Show(&st)
	return st
}

// state needs table.mu.
func (r *reverse) state() (state, reason string) {
	if r.leadsToControl() {
		return status.Denied, errControl.Error()
	}
	if r.vm.guest.Route().Link == nil {
		return status.Claim, "there is no link to the guest agent"
	}
	listening := 0
	for _, e := range r.ends {
		switch {
		case e.over:
			return status.Denied, fmt.Sprintf("more than %d listeners in one guest", wire.MaxReverse)
		case !e.heard:
			return status.Claim, "the guest agent has not said yet whether it listens"
		case e.state == wire.ReverseListening:
			listening++
		case e.state == wire.ReverseUnavailable && e.Listen.Addrs[0].Addr().Is6() && listening > 0:
			// A guest without IPv6: there, localhost is 127.0.0.1 alone.
		case e.state == wire.ReverseDenied:
			return status.Denied, "in the guest: " + e.reason
		default:
			return status.Claim, "in the guest: " + e.reason
		}
	}
	return status.Active, ""
}
