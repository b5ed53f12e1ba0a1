package tunnel

import (
	"errors"
	"fmt"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/mux"
	"github.com/rum-vm/rum-agent/tunnel/reserve"
)

// keylessLimits are a guest agent's for a host without a key, who may be any user
// there and have maxKeyless links.
var keylessLimits = mux.Limits{Waiting: 4 << 20, Held: 12 << 20}

// keylessBudget is for each of the maxKeyless links that any user of a host may have
// with a guest agent.
var keylessBudget = budget.Limits{Share: 0.01, Burst: 20 * time.Millisecond}

// maxHeld is how many streams that serve no client wait at a time for what they cost, and
// maxHeldKeyless that on a link without a key.
const maxHeld, maxHeldKeyless = 256, 32

// untrusted reports whether the host may be any user there: without a key, and where many
// connect. A line is opened by who has it.
func (l *guestLink) untrusted() bool { return l.many && l.orders == nil }

// limitsOf are no more than a host may have that may be anybody.
func (l *guestLink) limitsOf(of budget.Limits) budget.Limits {
	if l.untrusted() {
		return keylessBudget
	}
	return of
}

// What a guest agent without a key lets hosts have: any user there may be one.
const (
	// maxHostStreams is how many streams a host may have open.
	maxHostStreams = 16 << 10
	// maxKeylessConns is for the connections of all links, whether they carry a stream
	// or not, and keylessConnsOf which part of all descriptors they are at most. A
	// stream takes two.
	maxKeylessConns = 8192
	keylessConnsOf  = 8
	// maxKeylessFlows is for the UDP flows of a datagram stream, of which all links may
	// have 16. The kernel has 28,232 ports for them.
	maxKeylessFlows = 512
	keylessFlowsOf  = 8 * maxKeyless
)

var errTooManyKeyless = errors.New("more connections than hosts without a key may have")

// keylessLimit is less than most where few descriptors may be open.
func keylessLimit(most int, part uint64) int {
	return int(min(uint64(most), reserve.Limit()/part))
}

// admitHost bounds the streams of a host.
func (l *guestLink) admitHost(open int) error {
	most := maxHostStreams
	if l.orders == nil {
		most = maxHostStreams / maxKeyless
	}
	if open >= most {
		return fmt.Errorf("%d are open already", open)
	}
	return nil
}

// full reports whether the host may have no more connections.
func (l *guestLink) full() bool {
	if l.orders != nil {
		return false // how many there are is for the host to say
	}
	n := int(l.server.handedOver.Load())
	for _, o := range l.server.allLinks() {
		o.mu.Lock()
		n += len(o.waiting) + o.reading
		o.mu.Unlock()
		n += o.ends.Count()
	}
	return n > keylessLimit(maxKeylessConns, keylessConnsOf)
}
