package portwatch

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Own is a set of sockets of this process, such as a [Scanner] leaves out. The zero
// value is empty, and nil takes nothing in.
type Own struct {
	mu      sync.Mutex
	inodes  map[uint64]uint64 // with the cookies
	cookies map[uint64]bool
	gone    []uint64 // the inodes of those that are closed, oldest first
}

// maxGone is how many closed sockets stay in the set: a scan that is under way
// may have one in its hands. The kernel does not use an inode again for as long as
// that matters.
const maxGone = 256

// Add takes in a socket, and returns its inode for Remove. That is best done
// before it listens, as from [net.ListenConfig].Control.
func (o *Own) Add(c syscall.RawConn) (inode uint64, err error) {
	if o == nil {
		return 0, nil
	}
	var st unix.Stat_t
	var cookie uint64 // 0 from a kernel that has none
	var serr error
	err = c.Control(func(fd uintptr) {
		serr = unix.Fstat(int(fd), &st)
		cookie, _ = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE)
	})
	if err = errors.Join(err, serr); err != nil {
		return 0, fmt.Errorf("inode of a socket: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.inodes == nil {
		o.inodes, o.cookies = make(map[uint64]uint64), make(map[uint64]bool)
	}
	o.inodes[st.Ino] = cookie
	if cookie != 0 {
		o.cookies[cookie] = true
	}
	return st.Ino, nil
}

// Remove says that a socket is closed.
func (o *Own) Remove(inode uint64) {
	if o == nil || inode == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gone = append(o.gone, inode)
	if len(o.gone) > maxGone {
		delete(o.cookies, o.inodes[o.gone[0]])
		delete(o.inodes, o.gone[0])
		o.gone = slices.Delete(o.gone, 0, 1)
	}
}

// Has reports whether a socket is in the set, or was until a short while ago.
func (o *Own) Has(inode uint64) bool {
	if o == nil || inode == 0 {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_, has := o.inodes[inode]
	return has
}

// hasCookie is Has for a socket of which the cookie is known.
func (o *Own) hasCookie(cookie uint64) bool {
	if o == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cookies[cookie]
}

// without returns the sockets that are not in the set.
func (o *Own) without(sockets []socket) []socket {
	if o == nil {
		return sockets
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.DeleteFunc(sockets, func(s socket) bool {
		_, own := o.inodes[s.inode]
		return own
	})
}
