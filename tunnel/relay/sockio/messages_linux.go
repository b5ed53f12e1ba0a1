package sockio

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Message is one datagram, or a burst of them, as the kernel takes and gives it (struct mmsghdr of recvmmsg(2)). After
// it was received, or sent, N is how many bytes of it were.
type Message struct {
	unix.Msghdr
	N uint32
}

// MessagesCall is [ReceiveMany], [ReceiveErrors] or [SendMany].
type MessagesCall func(fd int, m []Message) (n int, err error)

// ReceiveMany is recvmmsg(2) that does not block. It returns how many messages have come; an error is that none has.
func ReceiveMany(fd int, m []Message) (int, error) { return many(unix.SYS_RECVMMSG, fd, m, 0) }

// ReceiveErrors is ReceiveMany for what the network said about datagrams (IP_RECVERR in ip(7)).
func ReceiveErrors(fd int, m []Message) (int, error) {
	return many(unix.SYS_RECVMMSG, fd, m, unix.MSG_ERRQUEUE)
}

// SendMany is sendmmsg(2) that does not block. It returns how many messages were sent; an error is that the first was not.
func SendMany(fd int, m []Message) (int, error) { return many(unix.SYS_SENDMMSG, fd, m, 0) }

func many(number uintptr, fd int, m []Message, flags uintptr) (int, error) {
	n, err := call(number, fd, unsafe.Pointer(unsafe.SliceData(m)), len(m), flags)
	return max(n, 0), err
}
