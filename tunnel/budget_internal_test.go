package tunnel

import (
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// endless repeats what it holds.
type endless struct{ b []byte }

func (e endless) Read(p []byte) (int, error) {
	n := 0
	for len(p)-n >= len(e.b) {
		n += copy(p[n:], e.b)
	}
	return n, nil
}
func (endless) Write(p []byte) (int, error) { return len(p), nil }

// floodConn is a control stream on which one message comes again and again.
type floodConn struct{ endless }

func (floodConn) Shrink() {}

// TestControlMessagesCostABoundedShareOfAProcessor counts what an endless flood of
// messages gets done.
func TestControlMessagesCostABoundedShareOfAProcessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const seconds = 10
		flood := wire.AppendMessage(nil, &wire.ScanErrorMessage{Text: "x"})
		ended := make(chan struct{})
		c := newControl(floodConn{endless{flood}}, ended, budget.New(budget.Link))
		handled := 0
		began := time.Now()
		stop := errors.New("enough")
		err := c.read(func(wire.Message) (bool, error) {
			handled++
			time.Sleep(time.Millisecond) // what it costs
			if time.Since(began) > seconds*time.Second {
				return false, stop
			}
			return false, nil
		})
		if err != stop {
			t.Fatal(err)
		}
		most := int((budget.Link.Burst+time.Duration(budget.Link.Share*seconds*float64(time.Second)))/time.Millisecond) + 2
		if handled > most || handled < most/2 {
			t.Errorf("%d messages of a millisecond each in %d s, want about %d", handled, seconds, most)
		}
		close(ended)
		if err := c.read(func(wire.Message) (bool, error) { time.Sleep(2 * budget.Link.Burst); return false, nil }); !errors.Is(err, budget.ErrEnded) {
			t.Errorf("a link that ended is waited for: %v", err)
		}
	})
}

// What a client of this side is waiting for is not held up.
func TestMessagesOfUseAreNotHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newControl(floodConn{endless{wire.AppendMessage(nil, &wire.EndMessage{ID: 1, Kind: wire.EndStopped})}}, nil, budget.New(budget.Link))
		n, began := 0, time.Now()
		err := c.read(func(wire.Message) (bool, error) {
			if n++; n == 2000 {
				return true, io.EOF
			}
			time.Sleep(time.Millisecond)
			return true, nil
		})
		if took := time.Since(began); err != io.EOF || took > 2*time.Second {
			t.Errorf("%d messages took %v (%v)", n, took, err)
		}
	})
}

// largeConn is a control stream on which a large message comes every second.
type largeConn struct {
	message []byte
	rest    []byte
	shrunk  *int
}

func (c *largeConn) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		time.Sleep(time.Second)
		c.rest = c.message
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}
func (c *largeConn) Write(b []byte) (int, error) { return len(b), nil }
func (c *largeConn) Shrink()                     { *c.shrunk++ }

// TestLargeMessagesLeaveNoBuffersBehind: thousands of ports are announced once, and the
// buffers of twenty VMs were a tenth of the agent's memory. Whoever sends such messages
// without end does not have buffers made without end.
func TestLargeMessagesLeaveNoBuffersBehind(t *testing.T) {
	for messages, want := range map[int]int{1: 1, 5: 1, 25: 3} {
		synctest.Test(t, func(t *testing.T) {
			shrunk, n := 0, 0
			message := wire.AppendMessage(nil, &wire.ScanErrorMessage{Text: "x"})
			message = append(binary.BigEndian.AppendUint32(nil, uint32(wire.MaxMessage)), append(message[4:], make([]byte, wire.MaxMessage-len(message[4:]))...)...)
			c := newControl(&largeConn{message: message, shrunk: &shrunk}, nil, budget.New(budget.Link))
			err := c.read(func(wire.Message) (bool, error) {
				if n++; n == messages {
					return true, io.EOF
				}
				return true, nil
			})
			if err != io.EOF || shrunk != want {
				t.Errorf("after %d large messages buffers were let go of %d times, want %d; %v", messages, shrunk, want, err)
			}
		})
	}
}
