package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockWait bounds how long another agent that starts at the same moment can
// take: it holds the lock for a connect and a bind.
const lockWait = 2 * time.Second

// lockDir returns the directory whose lock agents at path respect. Anybody who may open
// a directory can hold its lock, so it is one of this user alone: the socket's own, such
// as XDG_RUNTIME_DIR, or else one beside the socket, which is made.
func lockDir(path string) (string, error) {
	dir := filepath.Dir(path)
	if err := checkPrivate(dir); err == nil {
		return dir, nil
	}
	own := strings.TrimSuffix(path, ".sock")
	if own == path {
		own = path + ".lock"
	}
	if err := os.Mkdir(own, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make a folder for the lock of the control socket: %w", err)
	}
	return own, checkPrivate(own)
}

// checkPrivate tells whether a directory is of this user and for nobody else.
func checkPrivate(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at the folder of the control socket: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || !ok || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s is not a folder of this user alone, which the lock of the control socket needs: name another place with --socket, or take it away if nothing in it is needed", dir)
	}
	return nil
}

// lock takes a lock on a directory that ends with this process.
func lock(ctx context.Context, dir string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open the folder of the control socket: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock folder %s: %w", dir, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock folder %s: another process holds it: %w", dir, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
