package serve

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/relay"
)

// LastError is what went wrong last with the connections of a forward, and how often what
// did. The zero value is nothing yet.
type LastError struct {
	last   atomic.Pointer[failure]
	kinds  atomic.Pointer[counts] // nil until one is counted: most ports never have one
	ending atomic.Uint64          // clients that read an end where a reset was due
}

// counts are how many errors there were of each of [Kinds].
type counts [len(Kinds)]atomic.Uint64

type failure struct {
	text string
	kind string
	at   time.Time
}

// Note takes in why a connection was not what it should have been.
func (e *LastError) Note(err error) {
	e.count(err)
	e.remember(err)
}

func (e *LastError) remember(err error) {
	e.last.Store(&failure{err.Error(), Kinds[kindOf(err)], time.Now()})
}

func (e *LastError) count(err error) {
	if e.kinds.Load() == nil {
		e.kinds.CompareAndSwap(nil, new(counts))
	}
	e.kinds.Load()[kindOf(err)].Add(1)
}

// Counts are how many errors there were of each of [Kinds].
func (e *LastError) Counts() (n [len(Kinds)]uint64) {
	if kinds := e.kinds.Load(); kinds != nil {
		for i := range kinds {
			n[i] = kinds[i].Load()
		}
	}
	return n
}

// noteUnix is note where the client is on a unix socket, on which there is no reset:
// what was cut may look complete to it.
func (e *LastError) noteUnix(err error) {
	e.Note(fmt.Errorf("%w (on a unix socket this reads as an end; %d of its clients so far)", err, e.ending.Add(1)))
}

// Within reports whether something went wrong so long ago or less. What was the link's doing does
// not count: the state of its VM says so.
func (e *LastError) Within(d time.Duration) bool {
	f := e.last.Load()
	return f != nil && f.kind != status.ErrorCut && f.kind != status.ErrorNoWay && time.Since(f.at) <= d
}

// Show puts it into a status.
func (e *LastError) Show(st *status.Forward) {
	if f := e.last.Load(); f != nil {
		st.LastError, st.LastErrorKind, st.LastErrorAt = f.text, f.kind, &f.at
	}
}

// Ordinary tells whether a connection ended as its client wanted: browsers and many
// libraries end theirs with a reset.
func Ordinary(err error) bool { return err == nil || errors.Is(err, relay.ErrClient) }
