package relay

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Relay takes over two connections and copies both ways until both directions
// have ended, then closes both. An EOF is passed on as a half-close and the
// other direction goes on for as long as it likes. Anything else that befalls one
// connection ends the direction to it, and resets both when what it had brought
// has gone to the other: at once where nothing moves for a second.
//
// Relay returns at once where both connections are descriptors, and at the end
// where one is a yamux stream. done is called exactly once, at the end, with nil
// or what went wrong; that may be before or long after Relay returns.
func Relay(client, guest Conn, n *Counters, done func(error)) {
	c, g, ok := descriptors(client, guest)
	if !ok {
		done(relayMux(client, guest, n))
		return
	}
	Join(c, g, n, done)
}

// descriptors tells whether both connections can be handed to a loop.
func descriptors(client, guest Conn) (c, g FD, ok bool) {
	for _, conn := range []Conn{client, guest} {
		if s, ok := conn.(Stream); ok && !s.OnDescriptor() {
			return nil, nil, false
		}
	}
	c, okClient := client.(FD)
	g, okGuest := guest.(FD)
	return c, g, okClient && okGuest
}

// ErrClient marks what befell the connection that was given to [Relay] first, or
// the [Client]: it is the client's own doing, mostly.
var ErrClient = errors.New("client")

// ClientError is an [ErrClient] with what befell it.
type ClientError struct{ Err error }

func (e *ClientError) Error() string        { return ErrClient.Error() + ": " + e.Err.Error() }
func (e *ClientError) Unwrap() error        { return e.Err }
func (e *ClientError) Is(target error) bool { return target == ErrClient }

// relayMux is Relay with two goroutines, for what has no descriptor.
func relayMux(client, guest Conn, n *Counters) error {
	r := &relay{client: client, guest: guest}
	if s, ok := guest.(Stream); ok {
		r.stream = s
		// A write to a client that does not read would notice nothing.
		s.WhenDead(func() {
			if err := s.Failure(); !errors.Is(err, net.ErrClosed) {
				r.broke(guest, err)
				r.reset()
			}
		})
	}
	var out sync.WaitGroup
	out.Go(func() { r.half(guest, client, &n.Out) })
	r.half(client, guest, &n.In)
	out.Wait()
	return r.err
}

// relay joins two connections as a pair does. The phase of a direction is where its half
// is: it is open, and draining, while copyHalf runs, because [Stream] proves an end before
// its Read returns EOF; told once CloseWrite has returned, cut where the source has failed,
// and stopped where the destination has.
type relay struct {
	client, guest Conn
	stream        Stream // the guest, if it is a stream

	mu    sync.Mutex
	final int // directions that are
	over  bool
	err   error       // why both will be reset; nil as long as no reset is due
	look  *time.Timer // runs once one is
	drain Drain
}

// half is one direction, and then the watch for a reset of the end it read
// from, while the other direction is still open.
func (r *relay) half(dst, src Conn, count *atomic.Uint64) {
	srcErr, dstErr := copyHalf(dst, src, count, func(err error) { r.broke(src, err) })
	if srcErr == nil && dstErr == nil {
		dstErr = dst.CloseWrite()
	}
	switch {
	case dstErr != nil:
		r.broke(dst, dstErr)
		if r.finish() {
			r.reset()
		}
		return // what the broken end has brought still goes the other way
	case srcErr == nil:
		if r.finish() {
			r.close(dst)
			return
		}
		if srcErr = src.AwaitReset(); srcErr == nil {
			return
		}
	}
	r.broke(src, srcErr)
	dst.Drain()
	r.reset()
}

// finish notes that one direction is final and reports whether the other was.
func (r *relay) finish() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.final++
	return r.final == 2
}

// close is the end after which nothing is left to wait for, told to dst last.
func (r *relay) close(dst Conn) {
	r.mu.Lock()
	clean := r.err == nil && !r.over
	r.over = r.over || clean
	r.mu.Unlock()
	if !clean {
		dst.Drain()
		r.reset()
		return
	}
	_ = r.client.Close()
	_ = r.guest.Close()
}

// broke notes that an end takes nothing more, so that a reset is due.
func (r *relay) broke(end Conn, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil || r.over {
		return
	}
	if end == r.client {
		err = &ClientError{err}
	}
	r.err = err
	r.drain = NewDrain(r.progress())
	r.look = time.AfterFunc(DrainTick, r.checkDrain)
}

// checkDrain looks whether the reset that is due has waited for long enough.
func (r *relay) checkDrain() {
	r.mu.Lock()
	wait := !r.over && !r.drain.Over(r.progress())
	if wait {
		r.look.Reset(DrainTick)
	}
	r.mu.Unlock()
	if !wait {
		r.reset()
	}
}

// progress changes when something moves.
func (r *relay) progress() uint64 {
	if r.stream == nil {
		return 0
	}
	n := r.stream.Progress()
	if c, ok := r.client.(*socketConn); ok {
		n -= uint64(c.unsent())
	}
	return n
}

// reset resets both ends.
func (r *relay) reset() {
	r.mu.Lock()
	first := !r.over
	r.over = true
	if r.look != nil {
		r.look.Stop()
	}
	r.mu.Unlock()
	if first {
		r.client.Abort()
		r.guest.Abort()
	}
}

// copyHalf copies from src to dst until src ends, with an error or not, or dst
// has one. broken may be called before that, if src is known to have one while
// dst takes nothing.
func copyHalf(dst, src Conn, count *atomic.Uint64, broken func(error)) (srcErr, dstErr error) {
	if sock, ok := src.(*socketConn); ok {
		return newChunker(dst, sock, count, broken).run()
	}
	return copyBuffered(dst, src, count)
}

// muxBuffers are for what comes out of a yamux stream, which has a receive
// buffer of its own that large reads empty in one go.
var muxBuffers = newBuffers(256<<10, 16)

// copyBuffered copies from a yamux stream. It takes a buffer only once there is
// something to read, so that an idle connection holds none: a read into an
// empty slice waits without taking anything.
func copyBuffered(dst io.Writer, src io.Reader, count *atomic.Uint64) (srcErr, dstErr error) {
	for {
		if _, err := src.Read(nil); err != nil {
			return ignoreEOF(err), nil
		}
		buf := muxBuffers.get()
		n, err := src.Read(*buf)
		if n > 0 {
			if _, dstErr = dst.Write((*buf)[:n]); dstErr == nil {
				count.Add(uint64(n))
			}
		}
		muxBuffers.put(buf)
		if err != nil || dstErr != nil {
			return ignoreEOF(err), dstErr
		}
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
