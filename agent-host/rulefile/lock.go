package rulefile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockWait bounds how long others may take that put rules into files of the same directory.
const lockWait = 10 * time.Second

// own refuses a directory in which another user can put a file in the place of this one's.
func own(dir *os.File) error {
	info, err := dir.Stat()
	if err != nil {
		return bare(err)
	}
	switch st := info.Sys().(*syscall.Stat_t); {
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return byHand("its directory belongs to user %d, and is changed by that user alone", st.Uid)
	case info.Mode().Perm()&0o002 != 0:
		return byHand("every user may change its directory; if nobody has, run: chmod o-w %s", dir.Name())
	}
	return nil
}

// lock waits until no other process that locks the directory changes a file of it, and keeps
// them out until the directory is closed.
func lock(ctx context.Context, dir *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	for {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("lock its directory: %w", err)
		}
		select {
		case <-ctx.Done():
			return errors.New("another program has locked its directory; try again")
		case <-time.After(10 * time.Millisecond):
		}
	}
}
