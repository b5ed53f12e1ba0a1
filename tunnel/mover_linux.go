package tunnel

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// smallRead is how much is read with one plain read(2) before a direction is
// taken for a bulk transfer. A read that fills less is cheaper to copy than to
// move through a pipe.
const smallRead = 16 << 10

var (
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, smallRead); return &b }}
	// chunkBuffers are for what goes to a yamux stream, a frame at a time.
	chunkBuffers = sync.Pool{New: func() any { b := make([]byte, muxChunk); return &b }}
)

// mover copies one direction out of a descriptor. Small reads are copied
// through a pooled buffer; when reads fill the buffer it goes over to
// splice(2), provided that dst is a descriptor too. While it waits for the
// descriptor it holds neither buffer nor pipe, and it allocates nothing after
// it was made.
type mover struct {
	dst, src    Conn
	in, out     syscall.RawConn // out is nil when dst is not a descriptor
	count       *atomic.Uint64
	buffers     *sync.Pool
	readFn      func(fd uintptr) bool
	spliceFn    func(fd uintptr) bool
	drainFn     func(fd uintptr) bool
	buf         *[]byte
	pipe        *pipe
	n           int   // bytes of the last read or splice
	left        int   // bytes still in the pipe
	err         error // of the last system call; io.EOF at the end
	bulk        bool
	underfilled int // splices in a row that moved little
}

func newMover(dst, src Conn, count *atomic.Uint64) *mover {
	m := &mover{dst: dst, src: src, in: src.descriptor(), out: dst.descriptor(), count: count, buffers: &smallBuffers}
	if m.out == nil {
		m.buffers = &chunkBuffers
	}
	m.readFn, m.spliceFn, m.drainFn = m.read, m.splice, m.drain
	return m
}

func (m *mover) run() error {
	for {
		var err error
		if m.bulk {
			err = m.moveBulk()
		} else {
			err = m.moveSmall()
		}
		if err != nil {
			if m.pipe != nil {
				m.pipe.close() // it may hold bytes
				m.pipe = nil
			}
			return ignoreEOF(err)
		}
	}
}

// moveSmall reads once, as soon as there is something, and writes it.
func (m *mover) moveSmall() error {
	if err := m.in.Read(m.readFn); err != nil {
		return err
	}
	if m.err != nil {
		return m.src.endOfRead(m.err)
	}
	m.src.moved(m.n, 0)
	_, err := m.dst.Write((*m.buf)[:m.n])
	m.buffers.Put(m.buf)
	m.buf = nil
	if err != nil {
		return err
	}
	m.count.Add(uint64(m.n))
	m.bulk = m.n == smallRead && m.out != nil
	return nil
}

// read is called by the poller until it returns true. It takes a buffer for
// the time of the call only, unless the buffer was filled.
func (m *mover) read(fd uintptr) bool {
	buf := m.buffers.Get().(*[]byte)
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(int(fd), *buf) })
	if err == nil && n > 0 {
		m.buf, m.n, m.err = buf, n, nil
		return true
	}
	m.buffers.Put(buf)
	if err == unix.EAGAIN {
		return false
	}
	m.n, m.err = 0, err
	if err == nil {
		m.err = io.EOF
	}
	return true
}

// moveBulk moves one pipe full, and goes back to small reads when the pipe
// comes back nearly empty several times.
func (m *mover) moveBulk() error {
	if err := m.in.Read(m.spliceFn); err != nil {
		return err
	}
	if errors.Is(m.err, errNoPipe) {
		m.bulk, m.out = false, nil // out of descriptors: copy from now on
		return nil
	}
	if m.err != nil {
		return m.src.endOfRead(m.err)
	}
	m.src.moved(m.n, 0)
	m.left = m.n
	if err := m.out.Write(m.drainFn); err != nil {
		return err
	}
	if m.err != nil {
		return m.err
	}
	m.count.Add(uint64(m.n))
	pipes.Put(m.pipe)
	m.pipe = nil
	if m.n >= smallRead {
		m.underfilled = 0
	} else if m.underfilled++; m.underfilled == 8 {
		m.bulk, m.underfilled = false, 0
	}
	return nil
}

var errNoPipe = errors.New("no pipe to splice through")

func (m *mover) splice(fd uintptr) bool {
	p, ok := pipes.Get().(*pipe)
	if !ok {
		var err error
		if p, err = newPipe(); err != nil {
			m.err = errNoPipe
			return true
		}
	}
	n, err := ignoringEINTR(func() (int, error) {
		n, err := unix.Splice(int(fd), nil, p.w, nil, pipeSize, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		return int(n), err
	})
	if err == nil && n > 0 {
		m.pipe, m.n, m.err = p, n, nil
		return true
	}
	pipes.Put(p)
	if err == unix.EAGAIN {
		return false
	}
	m.n, m.err = 0, err
	if err == nil {
		m.err = io.EOF
	}
	return true
}

func (m *mover) drain(fd uintptr) bool {
	for m.left > 0 {
		n, err := ignoringEINTR(func() (int, error) {
			n, err := unix.Splice(m.pipe.r, nil, int(fd), nil, m.left, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			return int(n), err
		})
		if err == unix.EAGAIN {
			return false
		}
		if err != nil {
			m.err = err
			return true
		}
		m.left -= n
		m.dst.moved(0, n)
	}
	return true
}

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}
