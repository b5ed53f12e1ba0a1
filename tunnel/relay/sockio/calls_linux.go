package sockio

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Receive is recv(2) that does not block. It takes less than read(2).
func Receive(fd int, b []byte) (int, error) {
	return call(unix.SYS_RECVFROM, fd, unsafe.Pointer(unsafe.SliceData(b)), len(b), 0)
}

// Peek is Receive that leaves what it reads to be read again.
func Peek(fd int, b []byte) (int, error) {
	return call(unix.SYS_RECVFROM, fd, unsafe.Pointer(unsafe.SliceData(b)), len(b), unix.MSG_PEEK)
}

// Send is send(2) that does not block, and raises no signal.
func Send(fd int, b []byte) (int, error) {
	return call(unix.SYS_SENDTO, fd, unsafe.Pointer(unsafe.SliceData(b)), len(b), 0)
}

// call is for calls of bytes and of messages, of which there are n at p.
func call(number uintptr, fd int, p unsafe.Pointer, n int, flags uintptr) (int, error) {
	for {
		done, _, errno := unix.RawSyscall6(number, uintptr(fd), uintptr(p), uintptr(n), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL|flags, 0, 0)
		switch errno {
		case 0:
			return int(done), nil
		case unix.EINTR:
		default:
			return -1, errno
		}
	}
}
