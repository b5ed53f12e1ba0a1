// Package filewatch tells when files may have changed, without looking at them all the
// time. It asks the kernel (inotify) about the files, about the directories that they are
// in, because editors put new files in the place of old ones, and about each directory and
// link on the way there, because that may be moved or lead elsewhere.
//
// What is told is a hint. Who is told looks at the files.
package filewatch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Every is how long a look at the files stays good while something changes, and
	// where the kernel does not tell: on a network's file system, or without inotify.
	Every = 300 * time.Millisecond
	// rarely is how often the files are looked at although nothing was told.
	rarely = 30 * time.Second
	// itself is that what is on the way to a file is not there any more. A link that is
	// replaced is told of as IN_ATTRIB or IN_DELETE_SELF; the directory that it is in may
	// be a busy one, and is not asked.
	itself = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ATTRIB
	// entries are changes of a directory's entries, and a file that was written and
	// closed. Each write would be too much: a log may be in the same directory.
	entries = itself | unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE
	// content is what happens to a file under any of its names.
	content = itself | unix.IN_MODIFY
)

// Watcher tells when files may have changed. [New] makes one.
type Watcher struct {
	// C has a value when it is time to look. Between two there is at least a moment
	// of [Every], however much happens.
	C <-chan struct{}

	due     chan struct{}
	notices *os.File // the inotify instance; nil without one
	fd      int      // its descriptor, because Fd would make it block
	timer   *time.Timer
	watched map[string]int // the watch descriptor of each path
	closed  chan struct{}
	reader  sync.WaitGroup
}

// New makes a watcher that watches nothing yet.
func New() *Watcher {
	w := &Watcher{due: make(chan struct{}, 1), watched: make(map[string]int), closed: make(chan struct{})}
	w.C = w.due
	w.timer = time.AfterFunc(rarely, w.tell)
	if fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err == nil {
		w.notices, w.fd = os.NewFile(uintptr(fd), "inotify"), fd
		w.reader.Go(w.read)
	}
	return w
}

// Close ends the watcher; nothing is told afterwards.
func (w *Watcher) Close() {
	close(w.closed)
	w.timer.Stop()
	if w.notices != nil {
		_ = w.notices.Close()
	}
	w.reader.Wait()
}

// Expect has the files watched that are at these paths or may come to be there, and no
// others. It is called after each look. If something is still changing, the next look is
// due after [Every]. A Watcher has one caller.
func (w *Watcher) Expect(changing bool, paths []string) {
	wanted := make(map[string]uint32)
	for _, path := range paths {
		leadingTo(path, wanted)
	}
	told := w.notices != nil
	for path, mask := range wanted {
		told = told && w.add(path, mask)
	}
	for path := range w.watched {
		if wanted[path] == 0 {
			w.remove(path)
		}
	}
	next := rarely
	if changing || !told {
		next = Every
	}
	w.timer.Reset(next)
}

// maxLinks are as many as the kernel follows: MAXSYMLINKS of linux/namei.h.
const maxLinks = 40

// leadingTo adds to wanted what decides what is at a path, with what is to be told of each:
// of a file that does not exist it is the nearest directory above.
func leadingTo(path string, wanted map[string]uint32) {
	at, rest := "/", strings.Split(path, "/")
	if dir, err := os.Getwd(); err == nil && !filepath.IsAbs(path) {
		rest = append(strings.Split(dir, "/"), rest...)
	}
	for links := 0; len(rest) > 0; rest = rest[1:] {
		next := filepath.Join(at, rest[0]) // the directory above for ".."
		info, err := os.Lstat(next)
		target := ""
		if err == nil && info.Mode().Type() == fs.ModeSymlink {
			links++
			target, err = os.Readlink(next)
		}
		switch {
		case err != nil || links > maxLinks:
			wanted[at] |= entries
			return
		case target != "":
			wanted[next] |= itself
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = slices.Concat(rest[:1], strings.Split(target, "/"), rest[1:])
			continue
		case len(rest) == 1:
			wanted[at] |= entries
			wanted[next] |= content
		default:
			wanted[next] |= itself
		}
		at = next
	}
}

// add has a path watched, and reports whether all that is wanted is told.
func (w *Watcher) add(path string, mask uint32) bool {
	// What is found there is what was found before: a link is a link.
	if !local(filepath.Dir(path)) || mask&entries == entries && !local(path) {
		return false
	}
	// The same file has the same descriptor again. One in its place has another.
	wd, err := unix.InotifyAddWatch(w.fd, path, mask|unix.IN_MASK_ADD|unix.IN_DONT_FOLLOW)
	switch {
	case mask&entries != entries && errors.Is(err, unix.EACCES):
		return true // a directory above that is another's is seldom moved; the one with the file tells of its mode
	case err != nil:
		return false
	}
	if was, ok := w.watched[path]; !ok || was != wd {
		if ok {
			w.remove(path)
		}
		w.watched[path] = wd
		w.tell() // of what happened since the last look, before this
	}
	return true
}

// remove ends the watch of a path, unless another leads to the same file.
func (w *Watcher) remove(path string) {
	wd := w.watched[path]
	delete(w.watched, path)
	for _, other := range w.watched {
		if other == wd {
			return
		}
	}
	_, _ = unix.InotifyRmWatch(w.fd, uint32(wd)) // gone already where the file is
}

// local reports whether changes of a directory are this kernel's, and told by it.
func local(dir string) bool {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return false
	}
	switch uint32(st.Type) {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.V9FS_MAGIC,
		unix.FUSE_SUPER_MAGIC, unix.CEPH_SUPER_MAGIC, unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC, unix.CODA_SUPER_MAGIC, unix.NCP_SUPER_MAGIC:
		return false
	}
	return true
}

// read passes on that something happened, and then rests: what happens meanwhile is kept
// by the kernel, in a queue that it bounds.
func (w *Watcher) read() {
	rest := time.NewTimer(0)
	defer rest.Stop()
	buf := make([]byte, 64<<10)
	for {
		if _, err := w.notices.Read(buf); err != nil {
			if !errors.Is(err, fs.ErrClosed) {
				w.timer.Reset(Every)
			}
			return
		}
		w.tell()
		rest.Reset(Every)
		select {
		case <-w.closed:
			return
		case <-rest.C:
		}
	}
}

func (w *Watcher) tell() {
	select {
	case w.due <- struct{}{}:
	default:
	}
}
