package control

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Adopt is [Listen] for a control socket that a service manager has opened, and keeps: its file stays when the
// listener is closed.
func Adopt(f *os.File) (net.Listener, error) {
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("take over the control socket: %w", err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		_ = l.Close()
		return nil, fmt.Errorf("take over the control socket: %v is no unix socket", l.Addr())
	}
	// Who listens is who called listen(2) last (unix_listen in net/unix/af_unix.c): clients ask for this process, and
	// not for the service manager.
	if err := listenAnew(u); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("take over the control socket: %w", err)
	}
	return u, nil
}

func listenAnew(c syscall.Conn) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := rc.Control(func(fd uintptr) { err = unix.Listen(int(fd), unix.SOMAXCONN) }); cerr != nil {
		return cerr
	}
	return os.NewSyscallError("listen", err)
}
