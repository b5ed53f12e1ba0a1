package mux

import (
	"encoding/binary"
	"math"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/clock"
)

// What is between two hosts, with the buffers of ssh on both of them, holds megabytes, and on a slow network seconds of
// what is sent: a heartbeat would wait behind all of it. So each end of a session with resets says how much data it has read, whether
// or not anybody reads it there, and the other has no more under way than comes in good time.

const (
	// leastUnderWay, firstUnderWay and mostUnderWay are how much data may be under way, in bytes.
	leastUnderWay = 128 << 10
	firstUnderWay = 512 << 10
	mostUnderWay  = 4 << 20
	// readEvery is after how many bytes the peer is told that they have been read.
	readEvery = 64 << 10
	// queueMost is how much longer data may be under way than it has to, before much less of it may be.
	queueMost = 100 * time.Millisecond
	// queueLeast is how much longer than one and a half times what it has to it may take, for more of it to be under way. More than
	// fills the way gains nothing, and costs: ssh and sshd copy all that waits in them whenever more does than ever before.
	queueLeast = time.Millisecond
)

// sending is how much data is under way to the peer.
type sending struct {
	mu     sync.Mutex
	room   sync.Cond
	over   bool
	limit  int
	sent   uint64 // bytes in all
	read   uint64 // of these, by the peer
	full   bool   // some had to wait since the limit was last changed
	mark   uint64 // when this much is read,
	marked time.Duration
	gap    time.Duration // how much before that it may have been sent
	points [2]point      // the last two, at least readEvery apart
	least  time.Duration // the shortest time that it ever took; 0 before
}

// point is when how many bytes had been sent.
type point struct {
	sent uint64
	at   time.Duration
}

func newSending() *sending {
	began := point{at: clock.Now()}
	s := &sending{limit: firstUnderWay, points: [2]point{began, began}}
	s.room.L = &s.mu
	return s
}

// wait waits until n more bytes may be under way, and counts them.
func (s *sending) wait(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.over && s.sent > s.read && s.sent-s.read+uint64(n) > uint64(s.limit) {
		s.full = true
		s.room.Wait()
	}
	s.sent += uint64(n)
	if s.sent >= s.points[1].sent+readEvery {
		s.points = [2]point{s.points[1], {s.sent, clock.Now()}}
	}
	if s.mark <= s.read && s.sent > s.read+readEvery { // else the peer may have nothing to say until more comes
		s.mark, s.marked = s.sent-readEvery, clock.Now()
		s.gap = s.marked - s.points[0].at
	}
}

// arrived takes in that the peer has read n more bytes.
func (s *sending) arrived(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read = min(s.read+uint64(n), s.sent)
	if before := s.read - min(uint64(n), s.read); before < s.mark && s.mark <= s.read {
		s.adapt(max(1, clock.Now()-s.marked))
	}
	s.room.Broadcast()
}

// adapt changes the limit by how long data took, or that and the gap. It needs s.mu.
func (s *sending) adapt(took time.Duration) {
	if s.least == 0 || took+s.gap < s.least {
		s.least = took + s.gap
	}
	enough := s.least/2 + queueLeast
	switch queued := took - s.least; {
	case queued > queueMost:
		s.limit = max(leastUnderWay, s.limit*3/4)
	case s.full && queued < min(enough, queueMost/2):
		s.limit = min(mostUnderWay, s.limit+readEvery)
	case s.limit > firstUnderWay && queued > 2*enough:
		s.limit = max(firstUnderWay, s.limit-readEvery)
	}
	s.full = false
}

// tellRead tells the peer how much data has been read, until the session ends. It is not for who reads: a write may wait, and the
// peer with it.
func (g *guard) tellRead() {
	for {
		select {
		case <-g.closed:
			return
		case <-g.someRead:
		}
		frame := newHeader(yamuxWindow, 0, 0)
		binary.BigEndian.PutUint32(frame[8:], uint32(min(g.untold.Swap(0), math.MaxUint32)))
		g.writing.Lock()
		_, err := g.ReadWriteCloser.Write(frame[:])
		g.writing.Unlock()
		if err != nil {
			return // nor will the session's sender get further
		}
	}
}

// countRead counts data that has been read.
func (g *guard) countRead(n int) {
	if g.untold.Add(int64(n)) < readEvery {
		return
	}
	select {
	case g.someRead <- struct{}{}:
	default:
	}
}

// end lets everybody go on.
func (s *sending) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.room.Broadcast()
}
