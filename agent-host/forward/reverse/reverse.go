package reverse

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/clock"
	"github.com/rum-vm/rum-agent/tunnel/dial"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// Rule is a port or a unix socket that is to be open in a guest and to
// reach the host.
type Rule struct {
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
func (r Rule) key() string {
	return fmt.Sprintf("%v %q %v %q", r.Guest, r.GuestSocket, r.Host, r.HostSocket)
}

// Rules tells what is to be open in the VM of that name. It is called under a lock.
type Rules func(vm string) []Rule

// Set is what is to be open in one guest. Its methods may be called by several goroutines
// at once.
type Set struct {
	guest   *serve.Guest
	control string

	mu  sync.Mutex
	all []*reverse
}

// New returns an empty set. control is the path to which this program's control socket is
// bound, which no rule leads to; empty for none.
func New(g *serve.Guest, control string) *Set { return &Set{guest: g, control: control} }

// reverse is a rule in force for a VM.
type reverse struct {
	set  *Set
	rule Rule
	ends []*end // guarded by set.mu

	tally serve.Tally
}

// end is one listener in the guest. What is said of it is guarded by Set.mu.
type end struct {
	*announce.Reverse
	heard  bool // since there is this link
	over   bool // more than the guest is asked for
	state  wire.ReverseState
	reason string
}

// SetRules replaces the rules. Listeners that stay the same are left alone, and connections
// go on.
func (s *Set) SetRules(rules []Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.all
	s.all = nil
	for _, rule := range rules {
		i := slices.IndexFunc(old, func(r *reverse) bool { return r.rule.key() == rule.key() })
		if i < 0 {
			s.all = append(s.all, s.reverse(rule))
			continue
		}
		old[i].rule.Rule, old[i].rule.Label = rule.Rule, rule.Label
		s.all = append(s.all, old[i])
	}
	s.tell(s.guest.Route().Link)
}

// SetLink takes in that another link is to be told what is to be open, or, with nil, none.
func (s *Set) SetLink(l *serve.Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.all {
		for _, e := range r.ends {
			e.heard = false
		}
	}
	s.tell(l)
}

// Each calls f with each rule's port in the guest, 0 for a socket, the state, and the tally of its connections.
func (s *Set) Each(f func(port uint16, state string, t *serve.Tally)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.all {
		state, _ := r.state()
		f(r.port(), state, &r.tally)
	}
}

// Len is how many rules there are.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// Status tells about every rule, in their order.
func (s *Set) Status() []status.Forward {
	s.mu.Lock()
	defer s.mu.Unlock()
	shown := make([]status.Forward, 0, len(s.all))
	for _, r := range s.all {
		shown = append(shown, r.status())
	}
	return shown
}

func (s *Set) reverse(rule Rule) *reverse {
	r := &reverse{set: s, rule: rule}
	var listen []wire.Target
	for _, a := range rule.Guest {
		listen = append(listen, wire.Target{Network: "tcp", Addrs: []netip.AddrPort{a}})
	}
	if rule.GuestSocket != "" {
		listen = []wire.Target{wire.UnixTarget(rule.GuestSocket)}
	}
	for _, at := range listen {
		e := &end{}
		e.Reverse = &announce.Reverse{
			Listen: at, Dial: r.dial, Ended: r.ended, Counters: &r.tally.Counters,
			State: func(s wire.ReverseState, reason string) { r.heard(e, s, reason) },
		}
		r.ends = append(r.ends, e)
	}
	return r
}

// tell tells a link what is to be open in its guest. It needs s.mu.
func (s *Set) tell(l *serve.Link) {
	var all []*announce.Reverse
	for _, r := range s.all {
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
		s.guest.Log().Warn("reverse rules are not in force", "vm", s.guest.Name(), "error", err)
	}
}

// heard takes in how a listener in the guest is.
func (r *reverse) heard(e *end, state wire.ReverseState, reason string) {
	s, log := r.set, r.set.guest.Log()
	s.mu.Lock()
	defer s.mu.Unlock()
	e.heard, e.state, e.reason = true, state, reason
	if state == wire.ReverseListening {
		log.Info("port open in the guest", "vm", r.set.guest.Name(), "guest", e.Listen, "host", r.hosts())
	} else {
		log.Warn("port not open in the guest yet", "vm", r.set.guest.Name(), "guest", e.Listen, "reason", reason)
	}
}

// dial connects to the service on the host.
func (r *reverse) dial(ctx context.Context) (relay.Conn, error) {
	r.tally.Total.Add(1)
	r.tally.Active.Add(1)
	began := clock.Now()
	c, err := r.connect(ctx)
	if err == nil {
		r.tally.Counters.Dials.Observe(clock.Now() - began)
	}
	return c, err
}

func (r *reverse) connect(ctx context.Context) (relay.Conn, error) {
	if r.rule.HostSocket != "" {
		c, err := dial.Socket(ctx, r.rule.HostSocket)
		if err != nil {
			return nil, err
		}
		// The kernel knows it by the path that it was bound to, whatever leads there.
		if own := r.set.control; own != "" && c.RemoteAddr().String() == own {
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
	at, own := r.rule.HostSocket, r.set.control
	if at == "" || own == "" {
		return false
	}
	a, errA := os.Stat(at)
	b, errB := os.Stat(own)
	return at == own || errA == nil && errB == nil && os.SameFile(a, b)
}

func (r *reverse) ended(err error) {
	r.tally.Active.Add(-1)
	if err != nil {
		if !serve.Ordinary(err) {
			r.tally.Errors.Note(err)
		}
		r.set.guest.Log().Debug("connection from the guest failed", "vm", r.set.guest.Name(), "rule", r.rule.Rule, "error", err)
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

// status needs set.mu.
func (r *reverse) status() status.Forward {
	st := status.Forward{
		Reverse: true, Proto: "tcp", Rule: r.rule.Rule, Label: r.rule.Label, Guest: texts(r.rule.Guest), Host: r.hosts(), Listening: []string{},
	}
	st.Port = r.port()
	if r.rule.GuestSocket != "" {
		st.Proto, st.Guest = policy.ProtoUnix, []string{r.rule.GuestSocket}
	}
	if st.State, st.Reason = r.state(); st.State == status.Active {
		st.Path = stream.PathMux
	}
	r.tally.Show(&st)
	return st
}

// port is that in the guest; 0 for a socket.
func (r *reverse) port() uint16 {
	if r.rule.GuestSocket != "" {
		return 0
	}
	return r.rule.Guest[0].Port()
}

// state needs set.mu.
func (r *reverse) state() (state, reason string) {
	if r.leadsToControl() {
		return status.Denied, errControl.Error()
	}
	if r.set.guest.Route().Link == nil {
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
