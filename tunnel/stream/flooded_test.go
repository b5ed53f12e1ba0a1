package stream_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// A peer that sends ends of streams that there are not is read more slowly, and loses nothing by it: all that it sends
// is taken in, in order, it is told what it is to be told meanwhile, and its end is noticed.
func TestAPeerThatFloodsIsHeardToTheEndAndToldMeanwhile(t *testing.T) {
	const floods, records = 3, 10_000
	near, far := socketPair(t)
	peer := connOf(t, far)
	defer peer.Close()
	_ = peer.SetDeadline(time.Now().Add(30 * time.Second))
	var heard atomic.Uint64
	all := make(chan struct{}, floods)
	little := budget.New(budget.Limits{Share: 0.5, Burst: time.Millisecond})
	c, err := stream.NewEndsConn(connOf(t, near), func(m wire.EndMessage) bool {
		if heard.Add(1) != m.ID {
			t.Errorf("record %d comes as number %d", m.ID, heard.Load())
		}
		if m.ID%records == 0 {
			all <- struct{}{}
		}
		return false
	}, little)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	id := uint64(0)
	for flood := range uint64(floods) {
		var b []byte
		for range records {
			id++
			m := wire.EndMessage{ID: id, Kind: wire.EndComplete}
			b = m.AppendRecord(b)
		}
		if _, err := peer.Write(b); err != nil {
			t.Fatal(err)
		}
		c.Tell(wire.EndMessage{ID: flood, Kind: wire.EndStopped})
		var told [wire.EndRecord]byte
		if _, err := peer.Read(told[:]); err != nil {
			t.Fatal(err)
		}
		if m, known, err := wire.EndOf(told); !known || err != nil || m.ID != flood {
			t.Errorf("the peer is told %+v, %v", m, err)
		}
		select {
		case <-all:
		case <-time.After(30 * time.Second):
			t.Fatalf("%d records of %d were heard", heard.Load(), id)
		}
	}
	_ = peer.Close()
	if err := c.Wait(); err != stream.ErrClosedByPeer {
		t.Errorf("the peer has gone, and the connection ended with %v", err)
	}
}
