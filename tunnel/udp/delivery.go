package udp

import (
	"errors"
	"net/netip"
	"sync"

	"github.com/rum-vm/rum-agent/portwatch/udpdrops"
)

// Delivery tells which of the datagrams to a socket of this machine are of use: not
// those that the kernel drops because the socket's program does not read them. The
// sender of such a datagram is told nothing, so the kernel is asked now and then, and
// what follows is taken to fare like the last ones. A datagram that is read stands for
// some that are not, because a program that reads as fast as it can loses many of a fast
// sender. The zero value is ready.
type Delivery struct {
	mu      sync.Mutex
	sent    uint32  // since the kernel was asked
	next    uint32  // how many may be sent until it is asked again
	drops   uint32  // what it said
	asked   bool    // it has said something
	share   float64 // of what is sent now that is of no use
	useless float64 // what is not accounted for yet
}

// The kernel is asked after lookFirst datagrams and then after twice as many each time
// up to lookMost, which take a hundred times as long to send as the question.
const (
	lookFirst = 32
	lookMost  = 1024
	// perRead is how many datagrams of use are sent for each that is read.
	perRead = 4
)

// Sent takes in that a datagram was sent from an address to another, and reports
// whether it counts as of use. An error is that the kernel does not tell.
func (d *Delivery) Sent(from, to netip.AddrPort) (useful bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sent++; d.sent >= max(d.next, lookFirst) {
		if err = d.look(from, to); err != nil {
			d.share, d.asked = 0, false
		}
		d.next = min(2*max(d.next, lookFirst), lookMost)
		d.sent = 0
	}
	if d.useless += d.share; d.useless < 1 {
		return true, err
	}
	d.useless--
	return false, err
}

// look needs d.mu.
func (d *Delivery) look(from, to netip.AddrPort) error {
	drops, err := udpdrops.Of(from, to)
	if errors.Is(err, udpdrops.ErrNoSocket) {
		d.share, d.asked = 1, false
		return nil
	}
	if err != nil {
		return err
	}
	if d.asked {
		read := 1 - float64(drops-d.drops)/float64(d.sent)
		d.share = 1 - perRead*min(max(read, 0), 1./perRead)
	}
	d.drops, d.asked = drops, true
	return nil
}
