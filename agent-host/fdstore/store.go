package fdstore

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Wait is how long what the process before has left waits for its owner: as long as the host keeps the ports of a
	// VM that it cannot reach.
	Wait = 10 * time.Second
	// Max is how many listeners are kept. What systemd does with each grows with their number. The units'
	// FileDescriptorStoreMax= has room for the maps besides.
	Max = 8000
	// perMessage bounds the descriptors of a message; the kernel takes 253 (SCM_MAX_FD in linux/net/scm.h).
	perMessage = 240
	// settleTime is how long after its first snapshot an owner may open what it had: listeners whose program decides
	// about them wait a moment to be named.
	settleTime = 200 * time.Millisecond
)

// Place is where a listener is: the protocol ("tcp", "udp", "unix"), and an address or a path.
type Place struct {
	Proto string `json:"proto"`
	At    string `json:"at"`
}

// OwnedError says that a place is kept for another owner for a moment.
type OwnedError struct{ Owner string }

func (e *OwnedError) Error() string {
	return fmt.Sprintf("is kept for VM %s, which had it before the agent was started anew", e.Owner)
}

// entry is a listener of the store.
type entry struct {
	Place
	Owner string `json:"owner"`
	Index string `json:"-"` // its message's; "" before that is sent

	left *os.File // not taken yet; else nil
	fd   int      // ours, until it is sent; -1 then
}

// Store is the file descriptor store. A nil Store keeps nothing.
type Store struct {
	send func(state string, fds ...int) error
	log  *slog.Logger

	sending sync.Mutex // before mu: messages go out in the order of what they are about

	mu       sync.Mutex
	entries  map[Place]*entry
	unsent   []*entry
	members  map[string]int // of each index
	removed  []string       // indices of which nothing is left
	changed  bool           // since the map was sent
	flushing bool
	next     int // index
	mapIndex int
	settled  map[string]bool             // owners whose first snapshot has come
	awaited  map[string][]func()         // owners' functions for when the wait is over
	waiting  map[string]map[Place]*entry // what is left, by owner
	over     *time.Timer
	dropped  time.Time // when a UDP socket was, last
	full     bool
}

// New returns the store of this process, with what the process before has left there. send is [systemd.Notify].
// What is left and cannot be known is ended.
func New(send func(state string, fds ...int) error, passed []*os.File, wait time.Duration, log *slog.Logger) *Store {
	s := &Store{
		send: send, log: log, entries: make(map[Place]*entry), members: make(map[string]int), next: 1,
		settled: make(map[string]bool), awaited: make(map[string][]func()), waiting: make(map[string]map[Place]*entry),
	}
	owners := s.readMaps(passed)
	for _, f := range passed {
		if _, is := mapNumber(f.Name()); is {
			_ = f.Close()
			continue
		}
		if n, err := strconv.Atoi(f.Name()); err == nil {
			s.next = max(s.next, n+1)
		}
		s.members[f.Name()]++
		place, err := placeOf(f)
		owner, known := owners[place]
		e := &entry{Place: place, Owner: owner, Index: f.Name(), left: f, fd: -1}
		if err != nil || !known || s.entries[place] != nil {
			s.end(e)
			continue
		}
		s.entries[place] = e
		if s.waiting[owner] == nil {
			s.waiting[owner] = make(map[Place]*entry)
		}
		s.waiting[owner][place] = e
	}
	if len(passed) > 0 {
		log.Info("listeners are there from the agent before", "count", len(s.entries), "vms", len(s.waiting))
		s.changed = true
		s.over = time.AfterFunc(wait, s.waitOver)
		s.flushSoon()
	}
	return s
}

// Keep puts a listener into the store. It reports false where it is not kept.
func (s *Store) Keep(p Place, owner string, c syscall.RawConn) bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[p] != nil {
		return true // taken
	}
	if len(s.entries) >= Max {
		if !s.full {
			s.full = true
			s.log.Warn("listeners beyond a number are not kept while this agent is replaced", "kept", Max)
		}
		return false
	}
	fd, err := -1, error(nil)
	if cerr := c.Control(func(d uintptr) { fd, err = unix.FcntlInt(d, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil || err != nil {
		return false // for want of descriptors
	}
	e := &entry{Place: p, Owner: owner, fd: fd}
	s.entries[p] = e
	s.unsent = append(s.unsent, e)
	s.changed = true
	s.flushSoon()
	return true
}

// Drop notes that a listener has ended for good.
func (s *Store) Drop(p Place) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[p]; e != nil && e.left == nil {
		if p.Proto == "udp" {
			s.dropped = time.Now()
		}
		s.forget(e)
	}
}

// Take gives an owner the listener that it had before; nil for none. The error is an [*OwnedError] where it is
// another's.
func (s *Store) Take(p Place, owner string) (*os.File, error) {
	if s == nil {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[p]
	switch {
	case e == nil || e.left == nil:
		return nil, nil
	case e.Owner != owner:
		return nil, &OwnedError{e.Owner}
	}
	f := e.left
	e.left = nil
	s.unwait(e)
	return f, nil
}

// For is the error that Take would have.
func (s *Store) For(p Place, owner string) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[p]; e != nil && e.left != nil && e.Owner != owner {
		return &OwnedError{e.Owner}
	}
	return nil
}

// Await has a function called when nothing is waited for any more that an owner had, unless that has settled by then. It
// reports false, and never calls it, where nothing is.
func (s *Store) Await(owner string, over func()) bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.settled[owner] || len(s.waiting[owner]) == 0 {
		return false
	}
	s.awaited[owner] = append(s.awaited[owner], over)
	return true
}

// Settle notes that an owner has told all that it has. What it had and does not take now is ended.
func (s *Store) Settle(owner string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.settled[owner] || len(s.waiting[owner]) == 0 {
		return
	}
	s.settled[owner] = true
	delete(s.awaited, owner)
	time.AfterFunc(settleTime, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.endAll(owner)
	})
}

// waitOver ends whatever is left.
func (s *Store) waitOver() {
	s.mu.Lock()
	var call []func()
	for owner := range s.waiting {
		s.endAll(owner)
	}
	for _, all := range s.awaited {
		call = append(call, all...)
	}
	clear(s.awaited)
	s.mu.Unlock()
	for _, f := range call {
		f()
	}
}

// endAll, unwait, end and forget need s.mu.
func (s *Store) endAll(owner string) {
	for _, e := range s.waiting[owner] {
		s.log.Info("port closed: nothing listens there in the VM any more", "vm", owner, "host", e.At)
		s.unwait(e)
		s.end(e)
	}
}

func (s *Store) unwait(e *entry) {
	delete(s.waiting[e.Owner], e.Place)
	if len(s.waiting[e.Owner]) == 0 {
		delete(s.waiting, e.Owner)
	}
}

// end closes what is left, everywhere.
func (s *Store) end(e *entry) {
	End(e.left)
	if e.Proto == "unix" {
		_ = os.Remove(e.At)
	}
	_ = e.left.Close()
	e.left = nil
	s.forget(e)
}

// End has a listener serve nobody any more, in whatever process it is open.
func End(l syscall.Conn) {
	if c, err := l.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
}

// forget takes an entry that has ended out of the map.
func (s *Store) forget(e *entry) {
	if s.entries[e.Place] == e {
		delete(s.entries, e.Place)
		s.changed = true
	}
	if e.fd >= 0 {
		_ = unix.Close(e.fd)
		e.fd = -1
	}
	if e.Index != "" {
		if s.members[e.Index]--; s.members[e.Index] == 0 {
			delete(s.members, e.Index)
			s.removed = append(s.removed, e.Index)
		}
	}
	s.flushSoon()
}

// Close sends what is to be sent, and returns when it is: from then on the store is as it was left.
func (s *Store) Close() {
	if s == nil {
		return
	}
	if s.over != nil {
		s.over.Stop()
	}
	s.flush()
}

// Settled returns when systemd has let go of UDP sockets that were dropped just now, or after a moment. It reports false
// where there are none. A listener that is shut down is in nobody's way.
func (s *Store) Settled() bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	recent := time.Since(s.dropped) < time.Second
	s.mu.Unlock()
	if !recent {
		return false
	}
	s.flush()
	done, theirs, err := os.Pipe()
	if err != nil {
		return false
	}
	defer done.Close()
	raw, err := theirs.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { err = s.send("BARRIER=1", int(fd)) })
	}
	_ = theirs.Close()
	if err == nil {
		_ = done.SetReadDeadline(time.Now().Add(barrierTime))
		_, _ = done.Read(make([]byte, 1))
	}
	return true
}

// barrierTime bounds a wait for systemd with a lock held.
const barrierTime = 100 * time.Millisecond
