package datagrams

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/tunnel/udp"
)

const (
	// maxFlows is how many clients may talk to one VM at a time.
	maxFlows = 2048
	// A flow whose client is not of this host lasts for as long after its client's
	// last datagram as in the kernel's connection tracking: longer once it was
	// answered (UDP_CT_UNREPLIED and UDP_CT_REPLIED in
	// net/netfilter/nf_conntrack_proto_udp.c).
	udpUnanswered = 30 * time.Second
	udpAnswered   = 120 * time.Second
	// The kernel is asked whether the socket of a local client is still there when a
	// flow has been idle for lookMin, and again after as long, up to lookMax.
	lookMin = 10 * time.Second
	lookMax = 2 * time.Minute
	// lookPause is the shortest time between two such questions.
	lookPause = 250 * time.Millisecond
)

// Flows are the UDP flows of a VM: a client that sends to one of its forwards,
// and what comes back to that client. The flow of a client on this host lasts as
// long as the client's socket.
type Flows struct {
	guest  *serve.Guest
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu       sync.Mutex
	byClient map[flowKey]*flow
	byID     map[uint32]*flow
	nextID   uint32
	looked   time.Time  // when the kernel was last asked for lack of room
	way      *way       // through the link that was used last
	bridge   *udp.Flows // nil until needed
	sweeping bool
}

type flowKey struct {
	socket *udp.Socket
	peer   udp.Peer
}

// flow is guarded by Flows.mu, but for what says otherwise.
type flow struct {
	flowKey
	id      uint32
	service *serve.Service
	local   bool // the client is on this host

	target   netip.AddrPort
	answered bool // from there
	troubled bool // what was sent there got lost

	used  time.Time // when the client sent something
	check time.Time // when to look whether it is over

	replied      bool // the client was sent something
	confirmed    bool // and has sent something since
	asked, given int  // bytes, before that

	// What is of use of the answers; not guarded.
	delivery udp.Delivery // to a client on this host
	blind    atomic.Bool  // the kernel does not tell about that
	unasked  atomic.Int32 // answers since the client sent something
}

// answersPerDatagram is how many answers to a client of the network count as of use
// for each datagram that it sends. TCP inside WireGuard and QUIC acknowledge far
// sooner. What is sent beside that, as by a camera, shares the processor time of what is
// of no use, because nothing tells whether the client reads it.
const answersPerDatagram = 256

// destination is where in the guest the flow goes: always to the same address,
// also when the announcement changes, until it refuses. A server may have
// connected its socket to this client, and then is no listener any more. What has
// never answered may be the wrong one of several: then it is the next one's turn.
func (fl *flow) destination() netip.AddrPort {
	troubled := fl.troubled
	fl.troubled = false
	if fl.target.IsValid() && !troubled {
		return fl.target
	}
	all := policy.Candidates(fl.service.Listeners(), fl.peer.Addr.Addr().Is4())
	at := slices.Index(all, fl.target)
	if at < 0 || !fl.answered {
		at = (at + 1) % len(all)
	}
	fl.answered = false
	fl.target = all[at]
	return fl.target
}

// New returns the flows of a VM, of which there are none yet.
func New(g *serve.Guest) *Flows {
	u := &Flows{guest: g, byClient: make(map[flowKey]*flow), byID: make(map[uint32]*flow)}
	u.ctx, u.cancel = context.WithCancel(g.Context())
	return u
}

// Close ends what carries the flows.
func (u *Flows) Close() { u.cancel() }

// asks returns the number of the flow of a client that has sent some datagrams, and where
// they go. The flow begins with its first datagram.
func (u *Flows) asks(f *serve.Service, s *udp.Socket, peer udp.Peer, b []byte, size int) (id uint32, to netip.AddrPort) {
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	fl := u.byClient[flowKey{s, peer}]
	if fl == nil {
		fl = u.begin(f, flowKey{s, peer}, now)
	}
	fl.used = now
	fl.unasked.Store(0)
	fl.confirmed = fl.confirmed || fl.replied
	fl.asked += len(b) + int(udp.Count(b, size))*udpOverhead
	return fl.id, fl.destination()
}

// begin needs u.mu.
func (u *Flows) begin(f *serve.Service, k flowKey, now time.Time) *flow {
	if len(u.byClient) >= maxFlows {
		u.makeRoom(now)
	}
	for u.nextID++; u.byID[u.nextID] != nil; u.nextID++ {
	}
	ip := k.peer.Addr.Addr().Unmap()
	fl := &flow{
		flowKey: k, id: u.nextID, service: f, used: now, check: now.Add(lookMin),
		local: ip.IsLoopback() || ip == k.peer.Local.Unmap() || ip == k.socket.LocalAddr().Addr(),
	}
	u.byClient[k], u.byID[fl.id] = fl, fl
	f.Total.Add(1)
	f.Active.Add(1)
	if !u.sweeping {
		u.sweeping = true
		u.guest.Go(u.sweep)
	}
	return fl
}

// Answers to a client that may not be who it says it is are bounded until something
// more has come from it, or one forged datagram would have the guest flood somebody. A
// second one proves nothing, but a stricter bound would hurt who only listens, such as
// the viewer of a camera.
const (
	// udpOverhead is what a datagram takes besides its payload, in bytes.
	udpOverhead = 28
	// amplification is how many times as much may be answered as was asked, and
	// amplificationFree how many bytes in any case, enough for one answer of DNS.
	amplification     = 16
	amplificationFree = 4096
)

// answer returns the flow of that number, of which an answer of n bytes has come;
// nil for none. The error is why the client does not get it.
func (u *Flows) answer(id uint32, n int) (*flow, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	fl := u.byID[id]
	if fl == nil {
		return nil, nil
	}
	fl.answered = true
	if !fl.local && !fl.confirmed {
		if fl.given+n > max(amplification*fl.asked, amplificationFree) {
			return fl, errAmplified
		}
		fl.given += n
	}
	fl.replied = true
	return fl, nil
}

var errAmplified = fmt.Errorf("a client of the network was answered with %d times as much as it had asked, and has not answered back", amplification)

// lostInGuest returns the flow of that number, whose datagrams got lost; nil for
// none.
func (u *Flows) lostInGuest(id uint32) *flow {
	u.mu.Lock()
	defer u.mu.Unlock()
	fl := u.byID[id]
	if fl != nil {
		fl.troubled = true
	}
	return fl
}

// forget ends the flows of a socket.
func (u *Flows) forget(s *udp.Socket) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for k, fl := range u.byClient {
		if k.socket == s {
			u.end(fl)
		}
	}
}

// end needs u.mu.
func (u *Flows) end(fl *flow) {
	delete(u.byClient, fl.flowKey)
	delete(u.byID, fl.id)
	fl.service.Active.Add(-1)
	if u.way != nil {
		u.way.End(fl.id)
	}
	if u.bridge != nil {
		u.bridge.End(fl.id)
	}
}

var errTooManyFlows = fmt.Errorf("more than %d clients talk to this VM over UDP at a time", maxFlows)

// makeRoom ends at least one flow: those whose client is no more, else one of the
// forward that has the most, the one idle longest, and before others one that was
// never answered. It needs u.mu.
func (u *Flows) makeRoom(now time.Time) {
	if now.Sub(u.looked) >= lookPause {
		u.looked = now
		u.endGone(look(), func(*flow) bool { return true })
	}
	if len(u.byClient) < maxFlows {
		return
	}
	count := make(map[*serve.Service]int)
	for _, fl := range u.byClient {
		count[fl.service]++
	}
	var victim *flow
	worse := func(a, b *flow) bool {
		return cmp.Or(
			cmp.Compare(count[b.service], count[a.service]),
			cmp.Compare(rank(a.answered), rank(b.answered)),
			a.used.Compare(b.used),
		) < 0
	}
	for _, fl := range u.byClient {
		if victim == nil || worse(fl, victim) {
			victim = fl
		}
	}
	u.end(victim)
	victim.service.Lost(1, errTooManyFlows)
}

func rank(later bool) int {
	if later {
		return 1
	}
	return 0
}

// sockets are those of UDP that this host has, or why that is not known.
type sockets struct {
	portwatch.UDPSockets
	err error
}

func look() sockets {
	all, err := portwatch.LookUDPSockets()
	return sockets{all, err}
}

// endGone ends those of the flows whose client is on this host and has closed its
// socket. It needs u.mu.
func (u *Flows) endGone(all sockets, of func(*flow) bool) {
	for _, fl := range u.byClient {
		if !fl.local || !of(fl) {
			continue
		}
		gone := !all.Has(fl.peer.Addr)
		if all.err != nil { // as if it were somewhere in the network
			gone = time.Since(fl.used) > udpAnswered
		}
		if gone {
			u.end(fl)
		}
	}
}

// sweep ends flows that are over, as long as there are any.
func (u *Flows) sweep() {
	for {
		now := time.Now()
		var all sockets
		if u.mayBeGone(now) {
			all = look() // which takes a while, in which clients send
		}
		u.mu.Lock()
		next := u.expire(now, all)
		u.sweeping = len(u.byClient) > 0
		more := u.sweeping
		if !more && u.way != nil {
			// A link rests that carries nothing, and the next flow opens another stream.
			u.way.cancel()
			u.way = nil
		}
		u.mu.Unlock()
		if !more {
			return
		}
		select {
		case <-u.ctx.Done():
			return
		case <-time.After(max(time.Second, time.Until(next))):
		}
	}
}

// due reports whether it is to be looked whether a flow is over.
func (fl *flow) due(now time.Time) bool { return !now.Before(fl.check) }

// mayBeGone reports whether the kernel is to be asked for the sockets of clients.
func (u *Flows) mayBeGone(now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, fl := range u.byClient {
		if fl.local && fl.due(now) {
			return true
		}
	}
	return false
}

// expire ends flows that are over, and returns when to look again. all is what there was
// after now, if anything may be gone. It needs u.mu.
func (u *Flows) expire(now time.Time, all sockets) (next time.Time) {
	u.endGone(all, func(fl *flow) bool { return fl.due(now) })
	next = now.Add(lookMax)
	for _, fl := range u.byClient {
		idle := now.Sub(fl.used)
		switch {
		case fl.local && fl.due(now):
			fl.check = now.Add(min(max(idle, lookMin), lookMax))
		case !fl.local:
			fl.check = fl.used.Add(udpUnanswered)
			if fl.answered {
				fl.check = fl.used.Add(udpAnswered)
			}
			if fl.due(now) {
				u.end(fl)
				continue
			}
		}
		if fl.check.Before(next) {
			next = fl.check
		}
	}
	return next
}
