package netns

import (
	"os"

	"golang.org/x/sys/unix"
)

// trusted reports whether a network namespace was made by root, or by this program's user.
// Any other user is root only in there: nobody can lead a bridge to it, and its addresses
// may be those of others.
func trusted(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	fd, err := unix.IoctlRetInt(int(file.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return false
	}
	users := os.NewFile(uintptr(fd), "user namespace")
	defer users.Close()
	its, err := users.Stat()
	if err != nil {
		return false
	}
	// Who has made our own is of no interest, and may have no number in it.
	if ours, err := os.Stat("/proc/self/ns/user"); err == nil && os.SameFile(its, ours) {
		return true
	}
	uid, err := unix.IoctlGetUint32(fd, unix.NS_GET_OWNER_UID)
	return err == nil && (uid == 0 || int(uid) == os.Geteuid())
}
