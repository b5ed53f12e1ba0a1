package tunnel

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"
)

// Listen opens an endpoint that allows many connections, in the guest: vsock or
// unix. For vsock only the host, and the CIDs in allowed, may connect; who else
// tries is logged.
func Listen(e Endpoint, allowed []uint32, log *slog.Logger) (net.Listener, error) {
	var (
		l   net.Listener
		err error
	)
	switch e.Scheme {
	case SchemeVsock:
		l, err = listenVsock(e.Port, allowed, func(cid uint32) {
			log.Warn("refused a vsock connection that is not from the host", "cid", cid)
		})
	case SchemeUnix:
		l, err = ListenSocket(e.Path, 0o600)
	default:
		err = errors.New("not an endpoint to listen on")
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", e, err)
	}
	return l, nil
}

// OpenSerial opens a virtio-serial port in the guest. Reads on it return io.EOF
// while no host is connected.
func OpenSerial(path string) (net.Conn, error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := f.SetDeadline(time.Time{}); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s is not a serial port that can be waited for: %w", path, err)
	}
	return &pipeConn{r: f, w: f, name: pipeAddr(path)}, nil
}

// Stdio is our own standard input and output as a connection.
func Stdio() net.Conn {
	return &pipeConn{r: pollable(os.Stdin), w: pollable(os.Stdout), name: "stdio"}
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
