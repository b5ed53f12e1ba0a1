package tunnel

import (
	"io"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// chunkBuffers are for what goes to a yamux stream, a frame at a time.
var chunkBuffers = sync.Pool{New: func() any { b := make([]byte, muxChunk); return &b }}

// chunker copies from a socket to a yamux stream in pieces that make one
// frame each. While it waits for the descriptor it holds no buffer, and it
// allocates nothing after it was made.
type chunker struct {
	dst    io.Writer
	src    syscall.RawConn
	count  *atomic.Uint64
	readFn func(fd uintptr) bool
	buf    *[]byte
	n      int
	err    error
}

func newChunker(dst io.Writer, src syscall.Conn, count *atomic.Uint64) *chunker {
	c := &chunker{dst: dst, count: count}
	c.readFn = c.read
	c.src, c.err = src.SyscallConn()
	return c
}

func (c *chunker) run() error {
	if c.err != nil {
		return c.err // closed already
	}
	for {
		if err := c.src.Read(c.readFn); err != nil {
			return err
		}
		if c.err != nil {
			return ignoreEOF(c.err)
		}
		_, err := c.dst.Write((*c.buf)[:c.n])
		chunkBuffers.Put(c.buf)
		c.buf = nil
		if err != nil {
			return err
		}
		c.count.Add(uint64(c.n))
	}
}

// read is called by Go's poller until it returns true.
func (c *chunker) read(fd uintptr) bool {
	buf := chunkBuffers.Get().(*[]byte)
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(int(fd), *buf) })
	if err == nil && n > 0 {
		c.buf, c.n = buf, n
		return true
	}
	chunkBuffers.Put(buf)
	if err == unix.EAGAIN {
		return false
	}
	if c.err = err; err == nil {
		c.err = io.EOF
	}
	return true
}
