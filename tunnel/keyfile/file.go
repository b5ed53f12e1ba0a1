package keyfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read of a key file, in bytes.
const maxFile = 4096

// ErrNotKey says that what a file holds is no key.
var ErrNotKey = errors.New("not a key")

// ErrExposed says that others than its owner have access to a file or directory that must be private.
var ErrExposed = errors.New("others have access to it")

// Read returns the key in the file at path, in either form that [Parse] takes. The file must be private: see
// [ReadPrivate]. The error wraps [ErrExposed], [ErrNotKey] or that of opening the file.
func Read(path string) (Key, error) {
	data, err := ReadPrivate(path, maxFile)
	if err != nil {
		return Key{}, fmt.Errorf("key file: %w", err)
	}
	k, err := Parse(data)
	if err != nil {
		return Key{}, fmt.Errorf("key file %s: %w", path, err)
	}
	return k, nil
}

// ReadPrivate returns the content of a regular file that belongs to the calling user or root and is closed to
// everybody else, of at most limit bytes. A file that is not so is ErrExposed.
func ReadPrivate(path string, limit int64) ([]byte, error) {
	// Without O_NONBLOCK the open of a FIFO would wait for its writer.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := checkPrivate(f); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, limit)
	}
	return data, nil
}

func checkPrivate(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s is not a regular file", f.Name())
	}
	if uid := os.Geteuid(); st.Uid != 0 && int(st.Uid) != uid {
		return fmt.Errorf("%s belongs to user %d, not to %d: %w", f.Name(), st.Uid, uid, ErrExposed)
	}
	if st.Mode&0o077 != 0 {
		return fmt.Errorf("%s has mode %#o, run chmod 600 on it: %w", f.Name(), st.Mode&0o777, ErrExposed)
	}
	return nil
}

// WritePrivate makes data the content of the file at path, with mode 0600. Whoever opens it sees the old content
// or the new one, whole, also after a power cut.
func WritePrivate(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
