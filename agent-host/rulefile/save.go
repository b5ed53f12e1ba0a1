package rulefile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/config"
)

// Saved is where a rule is that was put into a file.
type Saved struct {
	Line  int
	Added bool // not where it was there already
	// InPlaceOf are the rules behind it from which it takes ports of the guest.
	InPlaceOf []string
}

// Save puts a rule into a project's file, at once or not at all. One that is there already, word
// for word and where it decides, stays as it is.
//
// The file keeps mode, owner and group. One that is behind a symbolic link, has several names,
// is another user's or in a directory that another may change, is read-only, or has no name that
// rum gives to its files, is left alone, also by root: the error wraps [ErrByHand]. Of several
// that save at a time each has its turn.
func Save(ctx context.Context, path string, r Rule) (saved Saved, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}()
	if !ofProject.MatchString(filepath.Base(path)) {
		return Saved{}, byHand("it is called neither rum.toml nor NAME.rum.toml, as the file of a project is, and is not changed")
	}
	switch real, err := filepath.EvalSymlinks(path); {
	case err != nil:
		return Saved{}, bare(err)
	case real != path:
		return Saved{}, byHand("it is behind a symbolic link, and is not changed")
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return Saved{}, bare(err)
	}
	defer dir.Close()
	if err := own(dir); err != nil {
		return Saved{}, err
	}
	if err := lock(ctx, dir); err != nil {
		return Saved{}, err
	}
	text, info, err := read(path)
	if err != nil {
		return Saved{}, err
	}
	with, saved, err := insert(path, text, r)
	if err != nil || !saved.Added {
		return saved, err
	}
	return saved, replace(path, with, info)
}

// read reads a file that may be replaced.
func read(path string) (text string, info os.FileInfo, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", nil, bare(err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return "", nil, bare(err)
	}
	switch st := info.Sys().(*syscall.Stat_t); {
	case !info.Mode().IsRegular():
		return "", nil, errors.New("it is not a regular file")
	case int(st.Uid) != os.Geteuid():
		return "", nil, byHand("it belongs to user %d, and only that user changes it this way", st.Uid)
	case st.Nlink > 1:
		return "", nil, byHand("it is one file under %d names (hard links), which a new one in its place would part", st.Nlink)
	case info.Mode().Perm()&0o200 == 0:
		return "", nil, byHand("it is read-only (mode %04o), and is not changed", info.Mode().Perm())
	}
	all, err := io.ReadAll(io.LimitReader(f, config.MaxSize+1))
	return string(all), info, bare(err)
}

// ofProject is what rum calls the file of a project.
var ofProject = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]*\.)?rum\.toml$`)

// replace has a file with another text take the place of the one that info is of, if that is
// still there as it was.
func replace(path, text string, info os.FileInfo) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-*")
	if err != nil {
		return bare(err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.WriteString(text)
	// Until it is the group's it is its owner's alone.
	if err = errors.Join(err, f.Chown(-1, int(info.Sys().(*syscall.Stat_t).Gid)), f.Chmod(info.Mode().Perm()), f.Sync(), f.Close()); err != nil {
		return bare(err)
	}
	now, err := os.Lstat(path)
	if err != nil {
		return bare(err)
	}
	if !os.SameFile(now, info) || now.Size() != info.Size() || !now.ModTime().Equal(info.ModTime()) {
		return errors.New("it was changed meanwhile; try again")
	}
	return os.Rename(f.Name(), path)
}
