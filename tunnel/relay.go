package tunnel

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// Relay takes over two connections and copies both ways until both directions
// have ended, then closes both. An EOF is passed on as a half-close and the
// other direction goes on for as long as it likes. Anything else that ends a
// direction resets both connections.
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
	join(c, g, n, done)
}

// descriptors tells whether both connections can be handed to a loop.
func descriptors(client, guest Conn) (c, g endpointFD, ok bool) {
	for _, conn := range []Conn{client, guest} {
		if s, ok := conn.(*Stream); ok && s.path == PathMux {
			return nil, nil, false
		}
	}
	c, okClient := client.(endpointFD)
	g, okGuest := guest.(endpointFD)
	return c, g, okClient && okGuest
}

// relayMux is Relay with two goroutines, for what has no descriptor.
func relayMux(client, guest Conn, n *Counters) error {
	r := &relay{client: client, guest: guest}
	if s, ok := guest.(*Stream); ok {
		// A write to a client that does not read would notice nothing.
		s.whenDead(func() {
			if err := s.failure(); !errors.Is(err, net.ErrClosed) {
				r.fail(err)
			}
		})
	}
	var out sync.WaitGroup
	out.Go(func() { r.half(guest, client, &n.Out) })
	r.half(client, guest, &n.In)
	out.Wait()
	return r.err
}

type relay struct {
	client, guest Conn

	mu    sync.Mutex
	ended int
	err   error
}

// half is one direction, and then the watch for a reset of the end it read
// from, while the other direction is still open.
func (r *relay) half(dst, src Conn, count *atomic.Uint64) {
	err := copyHalf(dst, src, count)
	if err == nil {
		err = dst.CloseWrite()
	}
	if r.finish(err) {
		return
	}
	if err := src.awaitReset(); err != nil {
		r.fail(err)
	}
}

// finish notes the end of one direction and reports whether nothing is left to
// wait for.
func (r *relay) finish(err error) bool {
	if err != nil {
		r.fail(err)
		return true
	}
	r.mu.Lock()
	r.ended++
	done := r.ended == 2 || r.err != nil
	both := r.ended == 2 && r.err == nil
	r.mu.Unlock()
	if both {
		_ = r.client.Close()
		_ = r.guest.Close()
	}
	return done
}

func (r *relay) fail(err error) {
	r.mu.Lock()
	first := r.err == nil && r.ended < 2
	if first {
		r.err = err
	}
	r.mu.Unlock()
	if first {
		r.client.Abort()
		r.guest.Abort()
	}
}

// copyHalf copies from src to dst until src ends; nil means with EOF.
func copyHalf(dst, src Conn, count *atomic.Uint64) error {
	if fd, ok := src.(syscall.Conn); ok {
		return newChunker(dst, fd, count).run()
	}
	return copyBuffered(dst, src, count)
}

// muxBuffers are for what comes out of a yamux stream, which has a receive
// buffer of its own that large reads empty in one go.
var muxBuffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// copyBuffered copies from a yamux stream. It takes a buffer only once there is
// something to read, so that an idle connection holds none: a read into an
// empty slice waits without taking anything.
func copyBuffered(dst io.Writer, src io.Reader, count *atomic.Uint64) error {
	for {
		if _, err := src.Read(nil); err != nil {
			return ignoreEOF(err)
		}
		buf := muxBuffers.Get().(*[]byte)
		n, err := src.Read(*buf)
		if n > 0 {
			if _, werr := dst.Write((*buf)[:n]); werr != nil {
				err = werr
			} else {
				count.Add(uint64(n))
			}
		}
		muxBuffers.Put(buf)
		if err != nil {
			return ignoreEOF(err)
		}
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
