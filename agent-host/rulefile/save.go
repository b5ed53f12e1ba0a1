package rulefile

import (
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

// Save puts a rule into a project's file, at once or not at all, and returns its line. The file
// keeps mode, owner and group. One that is behind a symbolic link, or another user's, or has
// no name that rum gives to its files, is left alone, also by root.
func Save(path string, r Rule) (line int, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}()
	if !ofProject.MatchString(filepath.Base(path)) {
		return 0, errors.New("it is called neither rum.toml nor NAME.rum.toml, as the file of a project is, and is not changed")
	}
	switch real, err := filepath.EvalSymlinks(path); {
	case err != nil:
		return 0, bare(err)
	case real != path:
		return 0, errors.New("it is behind a symbolic link, and is not changed")
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, bare(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, bare(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return 0, errors.New("it is not a regular file")
	case int(owner.Uid) != os.Geteuid():
		return 0, fmt.Errorf("it belongs to user %d, and only that user changes it this way", owner.Uid)
	}
	text, err := io.ReadAll(io.LimitReader(f, config.MaxSize+1))
	if err != nil {
		return 0, bare(err)
	}
	with, line, err := insert(path, string(text), r)
	if err != nil {
		return 0, err
	}
	return line, replace(path, with, info)
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

// bare is an error without the path that it names.
func bare(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}
