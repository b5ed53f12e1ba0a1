package mux

import (
	"encoding/binary"
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// yamuxHeader is the length of a yamux frame header; yamuxData is the type of a
// frame with a body (yamux spec.md).
const (
	yamuxHeader = 12
	yamuxData   = 0
)

// frameConn joins the header and the body of a yamux frame, which yamux writes
// one after the other, to one writev(2): one packet on vsock, and no copy. Who
// writes a frame has the guard's lock for it.
type frameConn struct {
	io.ReadWriteCloser
	raw     syscall.RawConn // nil when there is no descriptor to write to
	writeFn func(fd uintptr) bool

	header  [yamuxHeader]byte
	pending bool
	parts   [2][]byte // what is left to write
	err     error
}

func newFrameConn(c io.ReadWriteCloser) *frameConn {
	f := &frameConn{ReadWriteCloser: c, raw: rawWriter(c)}
	f.writeFn = f.write
	return f
}

// rawWriter is the descriptor that writes to c go to, where there is one. A connection
// over two files names the one that is written.
func rawWriter(c io.ReadWriteCloser) syscall.RawConn {
	sc, ok := c.(syscall.Conn)
	if files, is := c.(interface{ Writer() syscall.Conn }); is {
		sc = files.Writer()
		ok = sc != nil
	}
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil // closed; the next write says so
	}
	return raw
}

func (f *frameConn) Write(b []byte) (int, error) {
	if !f.pending {
		if f.raw != nil && len(b) == yamuxHeader && b[1] == yamuxData && binary.BigEndian.Uint32(b[8:]) > 0 {
			copy(f.header[:], b)
			f.pending = true
			return len(b), nil
		}
		return f.ReadWriteCloser.Write(b)
	}
	f.pending = false
	f.parts = [2][]byte{f.header[:], b}
	err := f.raw.Write(f.writeFn)
	if err == nil {
		err = f.err
	}
	left := len(f.parts[1])
	f.parts = [2][]byte{}
	if err != nil {
		return len(b) - left, err
	}
	return len(b), nil
}

// write is called by Go's poller until it returns true.
func (f *frameConn) write(fd uintptr) bool {
	for len(f.parts[1]) > 0 {
		n, err := unix.Writev(int(fd), f.parts[:])
		switch err {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		}
		if err != nil {
			f.err = err
			return true
		}
		head := min(n, len(f.parts[0]))
		f.parts[0] = f.parts[0][head:]
		f.parts[1] = f.parts[1][n-head:]
	}
	return true
}
