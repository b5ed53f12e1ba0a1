package tunnel

import (
	"container/list"
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/clock"
)

const (
	// maxStrangers is how many connections may be at a guest agent that have not said
	// what they are.
	maxStrangers = 256
	// strangerGrace is how long one has for that where others want its place. A host
	// agent says it along with the connection.
	strangerGrace = 100 * time.Millisecond
	// strangerCost is what one is charged with that comes to nothing.
	strangerCost = 400 * time.Microsecond
)

// strangersBudget is for all of them that come to nothing.
var strangersBudget = budget.Limits{Share: 0.08, Burst: time.Second / 4}

var errTooManyStrangers = errors.New("it did not say what it is, and others wanted its place")

// strangers are the connections at a guest agent that have not said what they are. Any
// user of the host may make them.
type strangers struct {
	left chan struct{}  // has a token when one of them may have gone
	work *budget.Budget // for those that come to nothing

	mu  sync.Mutex
	all list.List // of *stranger, the oldest first
}

type stranger struct {
	conn    net.Conn
	since   time.Duration
	element *list.Element // nil once it has gone
	pushed  bool          // it had to
}

func newStrangers() *strangers {
	return &strangers{left: make(chan struct{}, 1), work: budget.New(strangersBudget)}
}

// admit takes a connection in. Where there are too many, the oldest has to go, which
// may take as long as its grace.
func (s *strangers) admit(ctx context.Context, conn net.Conn) (*stranger, error) {
	for {
		st, wait := s.tryAdmit(conn)
		if st != nil {
			return st, nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-s.left:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

func (s *strangers) tryAdmit(conn net.Conn) (st *stranger, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := clock.Now()
	if s.all.Len() >= maxStrangers {
		oldest := s.all.Front().Value.(*stranger)
		if wait := oldest.since + strangerGrace - now; wait > 0 {
			return nil, wait
		}
		oldest.pushed = true
		s.remove(oldest)
		_ = oldest.conn.Close()
	}
	st = &stranger{conn: conn, since: now}
	st.element = s.all.PushBack(st)
	return st, 0
}

// known is for one that is a stranger no more. It may be called again.
func (s *strangers) known(st *stranger) {
	s.mu.Lock()
	s.remove(st)
	s.mu.Unlock()
	select {
	case s.left <- struct{}{}:
	default:
	}
}

// remove needs s.mu.
func (s *strangers) remove(st *stranger) {
	if st.element != nil {
		s.all.Remove(st.element)
		st.element = nil
	}
}

// wasPushed tells whether a connection had to go.
func (s *strangers) wasPushed(st *stranger) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return st.pushed
}
