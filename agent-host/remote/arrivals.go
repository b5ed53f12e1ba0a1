package remote

import (
	"time"

	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"github.com/rum-vm/rum-agent/agent-host/remote/protocol"
)

// arrivals bounds how fast a host may have VMs that were never there before: each has a name, a history and lines of log of
// its own. Its zero value has seen none.
type arrivals struct {
	known  map[uuid.UUID]bool
	tokens *rate.Limiter
}

const (
	// arrivalEvery is the time between two new VMs in the long run, after as many at once as there may be.
	arrivalEvery = 5 * time.Second
	// maxKnown is how many VMs are remembered; beyond that all are new again.
	maxKnown = 16 * protocol.MaxDomains
)

// admit reports whether a VM may be taken up now.
func (a *arrivals) admit(id uuid.UUID) bool {
	if a.known[id] {
		return true
	}
	if a.tokens == nil {
		a.tokens = rate.NewLimiter(rate.Every(arrivalEvery), protocol.MaxDomains)
	}
	if !a.tokens.Allow() {
		return false
	}
	if a.known == nil || len(a.known) >= maxKnown {
		a.known = make(map[uuid.UUID]bool)
	}
	a.known[id] = true
	return true
}
