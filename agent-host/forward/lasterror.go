package forward

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/relay"
)

// lastError is what went wrong last with the connections of a forward. The zero
// value is nothing yet.
type lastError struct {
	last   atomic.Pointer[failure]
	ending atomic.Uint64 // clients that read an end where a reset was due
}

type failure struct {
	text string
	at   time.Time
}

// note takes in why a connection was not what it should have been.
func (e *lastError) note(err error) { e.last.Store(&failure{err.Error(), time.Now()}) }

// noteUnix is note where the client is on a unix socket, on which there is no reset:
// what was cut may look complete to it.
func (e *lastError) noteUnix(err error) {
	e.note(fmt.Errorf("%w (on a unix socket this reads as an end; %d of its clients so far)", err, e.ending.Add(1)))
}

func (e *lastError) show(st *status.Forward) {
	if f := e.last.Load(); f != nil {
		st.LastError, st.LastErrorAt = f.text, &f.at
	}
}

// ordinary tells whether a connection ended as its client wanted: browsers and many
// libraries end theirs with a reset.
func ordinary(err error) bool { return err == nil || errors.Is(err, relay.ErrClient) }
