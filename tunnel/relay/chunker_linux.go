package relay

import (
	"fmt"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/mux"
	"golang.org/x/sys/unix"
)

// chunkBuffers are for what goes to a yamux stream, a frame at a time.
var chunkBuffers = newBuffers(mux.Chunk, 64)

// chunker copies from a socket to a yamux stream in pieces that make one
// frame each. While it waits for the descriptor it holds no buffer, and it
// allocates nothing after it was made.
type chunker struct {
	dst    io.Writer
	sock   *socketConn
	src    syscall.RawConn
	count  *atomic.Uint64
	readFn func(fd uintptr) bool
	buf    *[]byte
	n      int
	err    error

	broken  func(error)
	look    *time.Timer // runs during a write
	writing atomic.Bool
}

// lookEvery is how long a write may wait before a look at whether the source has
// been reset meanwhile, which nothing else would notice.
const lookEvery = 250 * time.Millisecond

func newChunker(dst io.Writer, sock *socketConn, count *atomic.Uint64, broken func(error)) *chunker {
	c := &chunker{dst: dst, sock: sock, count: count, broken: broken}
	c.readFn = c.read
	c.src, c.err = sock.SyscallConn()
	return c
}

func (c *chunker) run() (srcErr, dstErr error) {
	if c.err != nil {
		return c.err, nil // closed already
	}
	c.look = time.AfterFunc(lookEvery, c.lookAtSource)
	defer c.look.Stop()
	for {
		if err := c.src.Read(c.readFn); err != nil {
			return err, nil
		}
		if c.err == io.EOF {
			return c.sock.proveEOF(), nil
		}
		if c.err != nil {
			return fmt.Errorf("read: %w", c.err), nil
		}
		c.writing.Store(true)
		c.look.Reset(lookEvery)
		_, err := c.dst.Write((*c.buf)[:c.n])
		c.writing.Store(false)
		c.look.Stop()
		chunkBuffers.put(c.buf)
		c.buf = nil
		if err != nil {
			return nil, err
		}
		c.count.Add(uint64(c.n))
	}
}

func (c *chunker) lookAtSource() {
	if !c.writing.Load() {
		return
	}
	_ = c.src.Control(func(fd uintptr) {
		if hangup(int(fd))&unix.POLLERR != 0 {
			c.broken(errReset)
		} else {
			c.look.Reset(lookEvery)
		}
	})
}

// read is called by Go's poller until it returns true.
func (c *chunker) read(fd uintptr) bool {
	buf := chunkBuffers.get()
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(int(fd), *buf) })
	if err == nil && n > 0 {
		c.buf, c.n = buf, n
		return true
	}
	chunkBuffers.put(buf)
	if err == unix.EAGAIN {
		return false
	}
	if c.err = err; err == nil {
		c.err = io.EOF
	}
	return true
}
