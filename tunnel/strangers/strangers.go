package strangers

import (
	"container/list"
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/clock"
)

const (
	// Max is how many connections may be at a guest agent that have not said
	// what they are.
	Max = 256
	// grace is how long one has for that where others want its place. A host
	// agent says it along with the connection.
	grace = 100 * time.Millisecond
	// Cost is what one is charged with that comes to nothing.
	Cost = 400 * time.Microsecond
)

// Budget is for all of them that come to nothing.
var Budget = budget.Limits{Share: 0.08, Burst: time.Second / 4}

// ErrTooMany is why a connection was closed that had to go.
var ErrTooMany = errors.New("it did not say what it is, and others wanted its place")

// Set is the connections at a guest agent that have not said what they are. Any
// user of the host may make them.
type Set struct {
	left chan struct{}  // has a token when one of them may have gone
	work *budget.Budget // for those that come to nothing

	mu  sync.Mutex
	all list.List // of *Stranger, the oldest first
}

// Stranger is one of them.
type Stranger struct {
	conn    net.Conn
	since   time.Duration
	element *list.Element // nil once it has gone
	evicted bool          // it had to
}

// New returns an empty set.
func New() *Set {
	return &Set{left: make(chan struct{}, 1), work: budget.New(Budget)}
}

// Wait waits until there is time for another one, and returns an error if done is closed
// before.
func (s *Set) Wait(done <-chan struct{}) error { return s.work.Wait(done) }

// Charge takes what one costs that came to nothing.
func (s *Set) Charge() { s.work.Spend(Cost) }

// Admit takes a connection in. Where there are too many, the oldest has to go that has
// said nothing, which may take as long as its grace. One that has, and was not heard yet
// because this machine is busy, stays.
func (s *Set) Admit(ctx context.Context, conn net.Conn) (*Stranger, error) {
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

func (s *Set) tryAdmit(conn net.Conn) (st *Stranger, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := clock.Now()
	for s.all.Len() >= Max {
		oldest := s.all.Front().Value.(*Stranger)
		if wait := oldest.since + grace - now; wait > 0 {
			return nil, wait
		}
		if hasUnread(oldest.conn) {
			oldest.since = now
			s.all.MoveToBack(oldest.element)
			continue
		}
		oldest.evicted = true
		s.remove(oldest)
		_ = oldest.conn.Close()
	}
	st = &Stranger{conn: conn, since: now}
	st.element = s.all.PushBack(st)
	return st, 0
}

// Known is for one that is a stranger no more. It may be called again.
func (s *Set) Known(st *Stranger) {
	s.mu.Lock()
	s.remove(st)
	s.mu.Unlock()
	select {
	case s.left <- struct{}{}:
	default:
	}
}

// remove needs s.mu.
func (s *Set) remove(st *Stranger) {
	if st.element != nil {
		s.all.Remove(st.element)
		st.element = nil
	}
}

// WasEvicted tells whether a connection had to go.
func (s *Set) WasEvicted(st *Stranger) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return st.evicted
}

// hasUnread reports whether something has come on a connection that nobody has read yet.
func hasUnread(conn net.Conn) bool {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, _ = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	return err == nil && n > 0
}
