package serve

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/clock"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// Clients of a service that is down may be anybody here, and as many as somebody likes.
// Each of them is a connection to the guest, which the others are behind. So of those that
// come within refusedFor after a refusal, refusedRate a second are passed on; the rest is
// reset, as it would be by the service.
const (
	refusedFor  = time.Second
	refusedRate = 100
)

var errRefusedOften = fmt.Errorf("the service refused a connection within the last second, and more than %d come in one", refusedRate)

// refusals are those of a forward's clients. The zero value is none.
type refusals struct {
	last   atomic.Int64 // by package clock; 0 for never
	passed atomic.Pointer[budget.Budget]
}

// note takes in how a connection ended.
func (r *refusals) note(err error) {
	answer, ok := errors.AsType[*wire.AnswerError](err)
	if ok && answer.Status == wire.AnswerRefused || errors.Is(err, unix.ECONNREFUSED) {
		if r.passed.Load() == nil {
			r.passed.CompareAndSwap(nil, budget.New(budget.Limits{Share: 1, Burst: time.Second}))
		}
		r.last.Store(max(1, int64(clock.Now())))
	}
}

// forget is for when the guest has announced something of the service, or is reached anew.
func (r *refusals) forget() { r.last.Store(0) }

// pass reports whether one more client is to be passed on to the service.
func (r *refusals) pass() bool {
	last := r.last.Load()
	if last == 0 || clock.Now()-time.Duration(last) > refusedFor {
		return true
	}
	passed := r.passed.Load()
	if passed.Left() < 0 {
		return false
	}
	passed.Spend(time.Second / refusedRate)
	return true
}
