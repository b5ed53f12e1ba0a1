package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// vsockBuffer is asked for at both ends of a vsock connection, in bytes: the
// credit is the smaller of the two, and the default of 256 KiB costs a third of
// the throughput.
const vsockBuffer = 1 << 20

// dialVsock connects to a guest. The kernel gives up after 2 s by itself
// (VSOCK_DEFAULT_CONNECT_TIMEOUT, net/vmw_vsock/af_vsock.c).
func dialVsock(ctx context.Context, cid, port uint32) (net.Conn, error) {
	c, err := vsock.DialContext(ctx, cid, port, nil)
	if err != nil {
		return nil, vsockError(err, "vhost_vsock")
	}
	if err := growVsock(c); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// vsockError takes the address off an error, which whoever reports it names in a way
// that people write it, and says which kernel module is missing.
func vsockError(err error, module string) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	switch {
	case errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w: the kernel has no vsock; run: modprobe %s", err, module)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: no VM has this CID now, or a kernel module is missing; run: modprobe %s", err, module)
	}
	return err
}

// growVsock raises the buffer of a connection: first the maximum, then the size
// (vsock(7)). The kernel tells the peer at once.
func growVsock(c syscall.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var opErr error
	err = raw.Control(func(fd uintptr) {
		for _, opt := range []int{unix.SO_VM_SOCKETS_BUFFER_MAX_SIZE, unix.SO_VM_SOCKETS_BUFFER_SIZE} {
			if opErr = unix.SetsockoptUint64(int(fd), unix.AF_VSOCK, opt, vsockBuffer); opErr != nil {
				return
			}
		}
	})
	if err == nil {
		err = opErr
	}
	if err != nil {
		return fmt.Errorf("raise the vsock buffer: %w", err)
	}
	return nil
}

// vsockListener accepts connections of the host, and of the CIDs allowed beside
// it, and drops all others.
type vsockListener struct {
	*vsock.Listener
	allowed []uint32
	refused func(cid uint32)
}

func listenVsock(port uint32, allowed []uint32, refused func(cid uint32)) (net.Listener, error) {
	// On any CID of this machine: which one it has is known only once /dev/vsock
	// is there, which may be later than an agent that starts early in the boot,
	// and a migration changes it.
	l, err := vsock.ListenContextID(unix.VMADDR_CID_ANY, port, nil)
	if err != nil {
		return nil, vsockError(err, "vmw_vsock_virtio_transport")
	}
	return &vsockListener{l, append([]uint32{hostCID}, allowed...), refused}, nil
}

func (l *vsockListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer, ok := conn.RemoteAddr().(*vsock.Addr)
		if !ok || !slices.Contains(l.allowed, peer.ContextID) {
			_ = conn.Close()
			if ok {
				l.refused(peer.ContextID)
			}
			continue
		}
		if c, ok := conn.(syscall.Conn); ok {
			if err := growVsock(c); err != nil {
				_ = conn.Close() // gone already
				continue
			}
		}
		return conn, nil
	}
}
