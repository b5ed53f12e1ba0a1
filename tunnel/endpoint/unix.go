package endpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err // the path is named by whoever reports it
	}
	return conn, err
}

// dialAgent connects to a socket that a guest agent listens on itself.
func dialAgent(ctx context.Context, path string) (net.Conn, error) {
	conn, err := dialUnix(ctx, path)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		err = fmt.Errorf("%w: no guest agent listens there; one does with: rum-guest-agent --listen unix:%s", err, path)
	}
	return conn, err
}

// dialSerial connects to the socket that a VMM has for a serial port.
func dialSerial(ctx context.Context, path string) (net.Conn, error) {
	conn, err := dialUnix(ctx, path)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		err = fmt.Errorf("%w: no VM that runs has its serial port there", err)
	}
	return conn, err
}

// SocketListener is a unix socket with a name, listening. Closing it removes the file, as
// long as it is still the one that was made.
type SocketListener struct {
	net.Listener
	path string
	made os.FileInfo // the file as it was made

	mu     sync.Mutex
	closed bool
	look   *time.Timer // for the file; nil for none
}

// fileCheck is the time between two looks whether a socket still has its file.
const fileCheck = time.Second

// WhenLost has lost called, once, when the file that leads here is gone. It may be
// called still while Close is.
func (l *SocketListener) WhenLost(lost func(error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look = time.AfterFunc(fileCheck, func() {
		l.mu.Lock()
		has := l.closed || l.has()
		if has && !l.closed {
			l.look.Reset(fileCheck)
		}
		l.mu.Unlock()
		if !has {
			lost(fmt.Errorf("%s was removed or replaced", l.path))
		}
	})
}

// SyscallConn lends the descriptor.
func (l *SocketListener) SyscallConn() (syscall.RawConn, error) {
	return l.Listener.(*net.UnixListener).SyscallConn()
}

// has tells whether the file is there and leads here.
func (l *SocketListener) has() bool {
	now, err := os.Lstat(l.path)
	return err == nil && os.SameFile(now, l.made)
}

// Close ends the listener and removes its file.
func (l *SocketListener) Close() error {
	if l.has() {
		_ = os.Remove(l.path)
	}
	return l.Leave()
}

// Leave closes the listener here, and leaves its file to another process that has it too.
func (l *SocketListener) Leave() error {
	l.mu.Lock()
	l.closed = true
	if l.look != nil {
		l.look.Stop()
	}
	l.mu.Unlock()
	return l.Listener.Close()
}

// ListenSocket listens on a unix socket; mode says who may connect. What a
// program left behind that is gone is replaced. A socket that is served is
// EADDRINUSE, a file of another kind is an error too: neither is ours to remove.
// Closing removes the file.
func ListenSocket(path string, mode fs.FileMode) (*SocketListener, error) {
	l, err := bindSocket(path, mode)
	if errors.Is(err, unix.EADDRINUSE) {
		if err := removeStale(path); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", path, err)
		}
		l, err = bindSocket(path, mode)
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// listenBacklog is what Go's own listeners get where the system has no setting of
// its own; the kernel cuts it to net.core.somaxconn.
const listenBacklog = 4096

func bindSocket(path string, mode fs.FileMode) (*SocketListener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	// The file gets the mode that its socket has before, less the umask
	// (unix_bind_bsd in net/unix/af_unix.c), so that it is never open to more.
	if err := unix.Fchmod(fd, uint32(mode.Perm())); err != nil {
		return nil, os.NewSyscallError("fchmod", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l, err := listenBound(file, path, mode)
	if err != nil {
		_ = os.Remove(path)
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

func listenBound(file *os.File, path string, mode fs.FileMode) (*SocketListener, error) {
	if err := os.Chmod(path, mode); err != nil {
		return nil, err
	}
	made, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Listen(int(file.Fd()), listenBacklog); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	return adopt(file, path, made)
}

// AdoptSocket is [ListenSocket] for a socket that listens at path already, and whose file is still there.
func AdoptSocket(file *os.File, path string) (*SocketListener, error) {
	made, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	return adopt(file, path, made)
}

func adopt(file *os.File, path string, made os.FileInfo) (*SocketListener, error) {
	l, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return &SocketListener{Listener: l, path: path, made: made}, nil
}

var (
	errServed    = fmt.Errorf("another process serves this socket: %w", unix.EADDRINUSE)
	errNotSocket = errors.New("this file is not a socket")
)

// IsServed reports whether a program listens on the unix socket at path. Connecting to it as
// if it were for datagrams tells without disturbing who serves it: the kernel
// says ECONNREFUSED when there is no socket behind the file, and EPROTOTYPE
// when there is one of the other kind (unix_find_bsd in net/unix/af_unix.c). The error is
// that there is no descriptor to ask by.
func IsServed(path string) (bool, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, os.NewSyscallError("socket", err)
	}
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	_ = unix.Close(fd)
	return err != unix.ECONNREFUSED && err != unix.ENOENT, nil
}

// removeStale removes a socket that no program has any more.
func removeStale(path string) error {
	before, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if before.Mode()&fs.ModeSocket == 0 {
		return errNotSocket
	}
	served, err := IsServed(path)
	if err != nil {
		return err
	}
	if now, err := os.Lstat(path); served || err != nil || !os.SameFile(before, now) {
		return errServed // or somebody was quicker
	}
	return os.Remove(path)
}
