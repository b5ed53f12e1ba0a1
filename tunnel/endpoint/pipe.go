package endpoint

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// Pipe is a connection over a pair of files: a command's or our own standard input
// and output, or a serial port.
type Pipe struct {
	r, w *os.File
	name pipeAddr
}

type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }

// Writer is the file that what is written goes to.
func (c *Pipe) Writer() syscall.Conn { return c.w }

func (c *Pipe) Read(b []byte) (int, error)  { return c.r.Read(b) }
func (c *Pipe) Write(b []byte) (int, error) { return c.w.Write(b) }

// LocalAddr names the files.
func (c *Pipe) LocalAddr() net.Addr { return c.name }

// RemoteAddr names the files.
func (c *Pipe) RemoteAddr() net.Addr { return c.name }

// SetReadDeadline is that of the file which is read.
func (c *Pipe) SetReadDeadline(t time.Time) error { return c.r.SetReadDeadline(t) }

// SetWriteDeadline is that of the file which is written.
func (c *Pipe) SetWriteDeadline(t time.Time) error { return c.w.SetWriteDeadline(t) }

// SetDeadline is that of both files.
func (c *Pipe) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// Close closes both files, and unblocks who waits for them.
func (c *Pipe) Close() error {
	if c.r == c.w {
		return c.r.Close()
	}
	return errors.Join(c.w.Close(), c.r.Close())
}

// Stdio is our own standard input and output as a connection.
func Stdio() net.Conn {
	return &Pipe{r: pollable(os.Stdin), w: pollable(os.Stdout), name: "stdio"}
}

// pollable makes a pipe or socket that we inherited wake up a blocked read when
// it is closed. Anything else stays as it is.
func pollable(f *os.File) *os.File {
	info, err := f.Stat()
	if err != nil || info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) == 0 {
		return f
	}
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil || syscall.SetNonblock(fd, true) != nil {
		return f
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), f.Name())
}
