package guestagent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The block in the file is these lines around the host's. Nothing but they and a line
// between them that gives the host's name is ever removed.
const (
	hostsBegin = "# rum-guest-agent keeps the line below; it is made anew when it is changed"
	hostsEnd   = "# end of what rum-guest-agent keeps"
)

// maxHosts bounds the file in bytes. Lists of blocked names have a few MiB.
const maxHosts = 16 << 20

// hostsRest is how long the file must have been as it is: whoever writes it in place
// empties it first, and would write the rest into a file that has been replaced.
const hostsRest = time.Second

// withHost is text with the block for an address at its end, and nowhere else.
func withHost(text string, ip netip.Addr) string {
	var b strings.Builder
	within := false
	for line := range strings.Lines(text) {
		bare := strings.TrimRight(line, " \t\r\n") // of an editor that has touched it
		fields := strings.Fields(bare)
		switch {
		case bare == hostsBegin:
			within = true
		case bare == hostsEnd:
			within = false
		case within && len(fields) == 2 && fields[1] == HostName:
		default:
			b.WriteString(line)
		}
	}
	if s := b.String(); s != "" && !strings.HasSuffix(s, "\n") {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%s\n%v %s\n%s\n", hostsBegin, ip, HostName, hostsEnd)
	return b.String()
}

// writeHosts makes a file name the host, and reports whether it did not before. The file
// is replaced as a whole by one with its mode and owner, so that nobody ever reads half
// of it. One that is a link to somewhere is left alone, and one that is missing made.
func writeHosts(path string, ip netip.Addr) (written bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.ELOOP):
		return false, fmt.Errorf("%s is a symbolic link", path)
	case errors.Is(err, os.ErrNotExist):
		err = createFile(path, []byte(withHost("", ip)))
		return err == nil, err
	case err != nil:
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return false, fmt.Errorf("%s is not a regular file", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxHosts+1))
	if err != nil {
		return false, err
	}
	if len(text) > maxHosts {
		return false, fmt.Errorf("%s is larger than %d MiB", path, maxHosts>>20)
	}
	now := []byte(withHost(string(text), ip))
	if bytes.Equal(text, now) {
		return false, nil
	}
	if age := time.Since(info.ModTime()); age >= 0 && age < hostsRest {
		return false, errJustChanged
	}
	err = replaceFile(f, info, now)
	return err == nil, err
}

var errJustChanged = errors.New("the file has just been changed")

// replaceFile puts text in the place of a file that was read, unless it has changed since.
func replaceFile(was *os.File, info os.FileInfo, text []byte) error {
	path := was.Name()
	owner := info.Sys().(*syscall.Stat_t)
	next, err := writeBeside(path, text, func(f *os.File) error {
		copyLabel(f, was)
		return errors.Join(f.Chown(int(owner.Uid), int(owner.Gid)), f.Chmod(info.Mode().Perm()))
	})
	if err != nil {
		return err
	}
	defer os.Remove(next) // which has its new name by then, unless something failed
	switch latest, err := os.Lstat(path); {
	case err != nil:
		return err
	case !os.SameFile(latest, info) || latest.ModTime() != info.ModTime() || latest.Size() != info.Size():
		return errJustChanged
	}
	return os.Rename(next, path)
}

// createFile makes a file of text where there is none.
func createFile(path string, text []byte) error {
	next, err := writeBeside(path, text, func(f *os.File) error { return f.Chmod(0o644) })
	if err != nil {
		return err
	}
	defer os.Remove(next)
	err = os.Link(next, path)
	if errors.Is(err, os.ErrExist) {
		return errJustChanged
	}
	return err
}

// writeBeside makes the file that is to be another one, as prepare wants it.
func writeBeside(path string, text []byte, prepare func(*os.File) error) (next string, err error) {
	next = filepath.Join(filepath.Dir(path), ".rum-agent."+filepath.Base(path))
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err // it was left by an agent that was killed
	}
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, prepare(f), f.Sync(), f.Close()); err != nil {
		_ = os.Remove(next)
		return "", err
	}
	return next, nil
}

// copyLabel gives a file the SELinux label of another. Without one there is nothing to do.
func copyLabel(to, from *os.File) {
	const label = "security.selinux"
	var buf [256]byte
	if n, err := unix.Fgetxattr(int(from.Fd()), label, buf[:]); err == nil {
		_ = unix.Fsetxattr(int(to.Fd()), label, buf[:n], 0)
	}
}
