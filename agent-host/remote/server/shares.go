package server

import (
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/mux"
	"github.com/rum-vm/rum-agent/tunnel/reserve"
)

// All VMs of this host have one session with the host agent, and this process. None is to take what others need, whatever its
// guest does: connections, turns to send, and the processor time for data in small pieces. What waits for a guest that does not read is
// counted as its VM's by the session.

const (
	// mostConnections is how many there may be, if there are descriptors for them.
	mostConnections = 12 << 10
	// keptDescriptors are those for what is no connection.
	keptDescriptors = 64
	// mostUnderWay is how many writes are handed to the session at a time. With more, what is small would wait behind them.
	mostUnderWay = 2
	// smallest is how much a write has that costs nothing, in bytes, and smallCost what one costs that has a byte. A host agent takes a
	// few of a hundred thousand a second from all VMs together.
	smallest  = 4 << 10
	smallCost = time.Microsecond
	// afterWaiting is how much is written as soon as the other end has room again, in bytes. The rest takes turns.
	afterWaiting = smallest
)

// small is the processor time of a VM for writes that have little. In debt it is read from later, and so with more at a time.
var small = budget.Limits{Share: 0.03, Burst: 50 * time.Millisecond}

// shares are what the VMs have. The zero value is for one session.
type shares struct {
	mu    sync.Mutex
	vms   map[uuid.UUID]*share
	open  int      // connections
	under int      // writes under way
	turns []*share // those of whom a write waits, who is next first
}

// share is what one VM has of them.
type share struct {
	all     *shares
	open    int
	waiting []chan struct{} // writes, each of which is told that it is its turn
	small   *budget.Budget
}

// take is called for a connection to a VM, and drop when it has ended. A VM may have as many as are left for all others: there
// is always one for a VM that has none. The limit is how many there may be.
func (s *shares) take(id uuid.UUID, limit int) (*share, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.vms[id]
	if v == nil {
		v = &share{all: s, small: budget.New(small)}
	}
	if left := limit - s.open; v.open >= left {
		return nil, fmt.Errorf("it has %d connections, and no more than the %d that are left for other VMs", v.open, left)
	}
	if s.vms == nil {
		s.vms = make(map[uuid.UUID]*share)
	}
	s.vms[id] = v
	v.open++
	s.open++
	return v, nil
}

func (s *shares) drop(id uuid.UUID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.vms[id]
	s.open--
	if v.open--; v.open == 0 {
		delete(s.vms, id)
	}
}

// connectionLimit is how many connections there may be in all.
func connectionLimit() int {
	return int(min(mostConnections, max(reserve.Limit(), 2*keptDescriptors)-keptDescriptors))
}

// begin waits for a turn to write, which end ends. VMs take turns, whatever the number of their connections.
func (v *share) begin() {
	s := v.all
	s.mu.Lock()
	if s.under < mostUnderWay {
		s.under++
		s.mu.Unlock()
		return
	}
	turn := make(chan struct{})
	if len(v.waiting) == 0 {
		s.turns = append(s.turns, v)
	}
	v.waiting = append(v.waiting, turn)
	s.mu.Unlock()
	<-turn
}

func (s *shares) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.turns) == 0 {
		s.under--
		return
	}
	v := s.turns[0]
	s.turns = s.turns[1:]
	turn := v.waiting[0]
	if v.waiting = v.waiting[1:]; len(v.waiting) > 0 {
		s.turns = append(s.turns, v)
	}
	close(turn)
}

// pay waits until a write of so many bytes is paid for, or ended is closed.
func (v *share) pay(n int, ended <-chan struct{}) error {
	if n >= smallest {
		return nil
	}
	v.small.Spend(smallCost * time.Duration(smallest-n) / smallest)
	return v.small.Wait(ended)
}

// fair is a stream that has no more of the session than its VM's share.
type fair struct {
	*mux.Conn
	share *share
	ended <-chan struct{} // the session has
}

func (c *fair) Write(b []byte) (written int, err error) {
	if err := c.share.pay(len(b), c.ended); err != nil {
		return 0, err
	}
	for {
		c.share.begin()
		n, err := c.WriteReady(b[written:])
		c.share.all.end()
		if written += n; err != nil || written == len(b) {
			return written, err
		}
		if n == min(len(b)-written+n, mux.Chunk) { // there was room for a chunk
			continue
		}
		n, err = c.Conn.Write(b[written:min(len(b), written+afterWaiting)]) // waits for room, in no turn of others
		if written += n; err != nil || written == len(b) {
			return written, err
		}
	}
}
