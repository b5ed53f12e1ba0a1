package relay

import (
	"errors"
	"io/fs"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel/relay/sockio"
)

// fdConn is a connection made of a descriptor again, of whatever family, for what
// reads and writes in goroutines. Its addresses have been left behind with the
// connection that the descriptor was taken from.
type fdConn struct {
	*os.File
	socket sockio.Conn
}

// Conn makes d a connection for what reads and writes in goroutines, which owns the
// descriptor from then on. Of one that is closed it makes one on which everything fails.
func (d *Descriptor) Conn() net.Conn { return d.conn() }

func (d *Descriptor) conn() fdConn {
	fd, err := d.take()
	if err != nil {
		return fdConn{} // a nil *os.File is invalid
	}
	f := os.NewFile(uintptr(fd), rawConnection)
	return fdConn{f, sockio.New(f)}
}

const rawConnection = "raw connection"

func (c fdConn) Read(b []byte) (int, error) {
	n, err := c.socket.Read(b)
	return n, withoutPath(err)
}

func (c fdConn) Write(b []byte) (int, error) {
	n, err := c.socket.Write(b)
	return n, withoutPath(err)
}

// withoutPath leaves of an error what a net.Conn's would be: a file's is no
// net.Error.
func withoutPath(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}

func (c fdConn) LocalAddr() net.Addr  { return fdAddr(rawConnection) }
func (c fdConn) RemoteAddr() net.Addr { return fdAddr(rawConnection) }

type fdAddr string

func (fdAddr) Network() string  { return "file" }
func (a fdAddr) String() string { return string(a) }

func (c fdConn) CloseWrite() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var shutErr error
	if err := raw.Control(func(fd uintptr) { shutErr = unix.Shutdown(int(fd), unix.SHUT_WR) }); err != nil {
		return err
	}
	return os.NewSyscallError("shutdown", shutErr)
}
