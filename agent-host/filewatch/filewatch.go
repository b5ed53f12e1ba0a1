// Package filewatch tells when files may have changed, without looking at them all the
// time. It asks the kernel (inotify) about the directories that the files are in, and not
// about the files: editors put new files in the place of old ones.
//
// What is told is a hint. Who is told looks at the files.
package filewatch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
	// changes are those of a directory's entries, and a file that was written and
	// closed. Each write would be too much: a log may be in the same directory.
	changes = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE |
		unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
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
	dirs    map[string]int // the watch descriptor of each directory
	closed  chan struct{}
	reader  sync.WaitGroup
}

// New makes a watcher that watches nothing yet.
func New() *Watcher {
	w := &Watcher{due: make(chan struct{}, 1), dirs: make(map[string]int), closed: make(chan struct{})}
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
	wanted := make(map[string]bool)
	for _, path := range paths {
		for _, dir := range leadingTo(path) {
			wanted[dir] = true
		}
	}
	told := w.notices != nil
	for dir := range wanted {
		told = told && w.add(dir)
	}
	for dir := range w.dirs {
		if !wanted[dir] {
			w.remove(dir)
		}
	}
	next := rarely
	if changing || !told {
		next = Every
	}
	w.timer.Reset(next)
}

// leadingTo are the directories whose changes decide what is at a path: that of each link
// on the way as well as that of the file. Of one that does not exist it is the nearest above.
func leadingTo(path string) (dirs []string) {
	for range 40 { // links, as many as the kernel follows: MAXSYMLINKS of linux/namei.h
		dir := filepath.Dir(path)
		for {
			if info, err := os.Stat(dir); err == nil && info.IsDir() || dir == filepath.Dir(dir) {
				break
			}
			dir = filepath.Dir(dir)
		}
		dirs = append(dirs, dir)
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return dirs
}

// add has a directory watched, and reports whether all that happens there is told.
func (w *Watcher) add(dir string) bool {
	if !local(dir) {
		return false
	}
	// The same directory has the same descriptor again. One in its place has another.
	wd, err := unix.InotifyAddWatch(w.fd, dir, changes|unix.IN_ONLYDIR)
	if err != nil {
		return false
	}
	if was, ok := w.dirs[dir]; !ok || was != wd {
		if ok {
			w.remove(dir)
		}
		w.dirs[dir] = wd
		w.tell() // of what happened since the last look, before this
	}
	return true
}

func (w *Watcher) remove(dir string) {
	_, _ = unix.InotifyRmWatch(w.fd, uint32(w.dirs[dir])) // gone already where the directory is
	delete(w.dirs, dir)
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
