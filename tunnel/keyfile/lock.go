package keyfile

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Lock keeps out everybody else who locks the file at path, which it makes if need be with mode 0600, until the returned
// function is called. It waits for its turn.
func Lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
