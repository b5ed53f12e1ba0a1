package process

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/procfs"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"golang.org/x/sys/unix"
)

const (
	// lookupTries is how many scans look for the owner of a socket. More than
	// one, because a descriptor that a parent passes to its child may be in
	// neither list at the moment of looking; not many, because sockets of the
	// kernel have no owner to find.
	lookupTries = 3
	// maxFDs bounds the descriptors read of one process. The kernel lists them
	// in ascending order and a server opens its listeners early.
	maxFDs = 1024
	// maxLinks bounds the descriptors read in one sweep of /proc, about 100 ms.
	maxLinks = 65536
	// maxAncestors bounds the walk from a worker to the process that started it.
	maxAncestors = 8
	// programAge is how long what was read of a process counts, unless it has another
	// name by then: a scan ten times a second need not read all of it each time.
	programAge = time.Second
	// MaxName bounds a name that is shown, in bytes; the kernel's own limit is 15,
	// worker threads of the kernel go beyond it.
	MaxName = 64
)

// Owners remembers which process owns which socket.
type Owners struct {
	// Root is where procfs is mounted.
	Root string

	known map[uint64]owner // by inode
}

// owner is a process that holds a socket; the zero value is none.
type owner struct {
	pid   int
	fd    string // the number of the descriptor
	comm  string
	tries int // of searches that found none

	program portlist.Program
	readAt  time.Time // when that was read
}

// String is "name[pid]", or "" for none.
func (o owner) String() string {
	if o.pid == 0 {
		return ""
	}
	return fmt.Sprintf("%s[%d]", Printable(o.comm, MaxName), o.pid)
}

// Owner is what is told of the process that owns a socket; the zero value is nothing.
type Owner struct {
	// Process is "name[pid]".
	Process string
	Program portlist.Program
}

// Of returns by inode who owns those sockets whose owner is known. Inode 0 is no socket's.
// That a process still holds its socket is looked at every time, and what it is
// called by now. It sweeps /proc once if there are sockets it has not searched for
// enough, and forgets all others.
func (p *Owners) Of(inodes []uint64) map[uint64]Owner {
	known := make(map[uint64]owner, len(inodes))
	wanted := make(map[uint64]bool)
	now, seen := time.Now(), make(map[int]owner)
	for _, inode := range inodes {
		if inode == 0 {
			continue
		}
		o := p.known[inode]
		switch {
		case o.pid != 0 && p.holdsStill(o, inode):
			p.refresh(&o, now, seen)
		case o.pid != 0:
			o = owner{tries: 1}
			wanted[inode] = true
		case o.tries < lookupTries:
			o.tries++
			wanted[inode] = true
		}
		known[inode] = o
	}
	if len(wanted) > 0 {
		for inode, o := range newSweep(p.Root).find(wanted) {
			p.refresh(&o, now, seen)
			known[inode] = o
		}
	}
	p.known = known
	found := make(map[uint64]Owner, len(known))
	for inode, o := range known {
		found[inode] = Owner{o.String(), o.program}
	}
	return found
}

// holdsStill looks at the one descriptor that a process had for a socket.
func (p *Owners) holdsStill(o owner, inode uint64) bool {
	var buf [64]byte
	n, err := unix.Readlink(filepath.Join(p.Root, strconv.Itoa(o.pid), "fd", o.fd), buf[:])
	return err == nil && string(buf[:n]) == fmt.Sprintf("socket:[%d]", inode)
}

// refresh reads what a process is now: it may have become another program. seen holds
// those that were read already.
func (p *Owners) refresh(o *owner, now time.Time, seen map[int]owner) {
	if s, ok := seen[o.pid]; ok {
		o.comm, o.program, o.readAt = s.comm, s.program, s.readAt
		return
	}
	was := o.comm
	if b, err := os.ReadFile(filepath.Join(p.Root, strconv.Itoa(o.pid), "comm")); err == nil {
		o.comm = strings.TrimSuffix(string(b), "\n")
	}
	if o.comm != was || now.Sub(o.readAt) >= programAge {
		o.program, o.readAt = readProgram(p.Root, o.pid, o.program.Home()), now
	}
	seen[o.pid] = *o
}

// Find searches all processes for the one that has a socket, and returns "name[pid]", or ""
// for none that may be looked into. root is where procfs is mounted.
func Find(root string, inode uint64) string {
	return newSweep(root).find(map[uint64]bool{inode: true})[inode].String()
}

// sweep is one search through /proc, which reads of each process once.
type sweep struct {
	root    string
	links   int                       // descriptors looked at
	sockets map[int]map[uint64]string // descriptors by inode, by process
	stats   map[int]procfs.ProcStat
	homes   map[uint64]string // by user
}

func newSweep(root string) *sweep {
	return &sweep{
		root: root, sockets: make(map[int]map[uint64]string), stats: make(map[int]procfs.ProcStat), homes: make(map[uint64]string),
	}
}

// find searches the descriptors of all processes for the wanted inodes
// and empties wanted while it finds them. What may not be read is passed over.
// The newest process is asked first: a server that just began to listen is
// among them, and systemd, which keeps a copy of every socket it activates, is
// the last.
func (s *sweep) find(wanted map[uint64]bool) map[uint64]owner {
	found := make(map[uint64]owner)
	proc, err := procfs.NewFS(s.root)
	if err != nil {
		return found
	}
	procs, err := proc.AllProcs()
	if err != nil {
		return found
	}
	slices.SortFunc(procs, func(a, b procfs.Proc) int { return b.PID - a.PID })
	for _, pr := range procs {
		if len(wanted) == 0 || s.links > maxLinks {
			break
		}
		for inode, fd := range s.socketsOf(pr.PID) {
			if !wanted[inode] {
				continue
			}
			if o := s.describe(proc, pr.PID, inode, fd); o.pid != 0 {
				found[inode] = o
				delete(wanted, inode)
			}
		}
	}
	return found
}

// describe returns the process that a socket belongs to, or none if that has just
// ended: pid, which has it as descriptor fd, or the oldest of its ancestors in a
// row that hold the socket too, which is the master of a server with forked
// workers. The init process does not count as one.
func (s *sweep) describe(proc procfs.FS, pid int, inode uint64, fd string) owner {
	stat, ok := s.statOf(proc, pid)
	if !ok {
		return owner{}
	}
	for range maxAncestors {
		if stat.PPID <= 1 {
			break
		}
		of := s.socketsOf(stat.PPID)[inode]
		if of == "" {
			break
		}
		parent, ok := s.statOf(proc, stat.PPID)
		if !ok {
			break
		}
		stat, fd = parent, of
	}
	o := owner{pid: stat.PID, fd: fd, comm: stat.Comm}
	if p, err := proc.Proc(stat.PID); err == nil {
		if status, err := p.NewStatus(); err == nil {
			o.program = portlist.NewProgram("", "", s.homeOf(status.UIDs[1])) // the effective one
		}
	}
	return o
}

// homeOf asks about each user once.
func (s *sweep) homeOf(uid uint64) string {
	home, ok := s.homes[uid]
	if !ok {
		home = homeOf(uid)
		s.homes[uid] = home
	}
	return home
}

// statOf reports false for a process that has ended.
func (s *sweep) statOf(proc procfs.FS, pid int) (stat procfs.ProcStat, ok bool) {
	if stat, ok := s.stats[pid]; ok {
		return stat, true
	}
	p, err := proc.Proc(pid)
	if err == nil {
		stat, err = p.Stat()
	}
	if err != nil {
		return stat, false
	}
	s.stats[pid] = stat
	return stat, true
}

// socketsOf is the sockets that a process has open, as far as there is room to look.
func (s *sweep) socketsOf(pid int) map[uint64]string {
	if all, ok := s.sockets[pid]; ok || s.links > maxLinks {
		return all
	}
	all := make(map[uint64]string)
	s.links += eachSocket(s.root, pid, func(inode uint64, fd string) {
		if _, again := all[inode]; !again {
			all[inode] = fd
		}
	})
	s.sockets[pid] = all
	return all
}

// eachSocket calls f with the inode and the descriptor of each socket that a
// process has open, and returns how many descriptors it looked at.
func eachSocket(root string, pid int, f func(inode uint64, fd string)) (links int) {
	dir, err := os.Open(filepath.Join(root, strconv.Itoa(pid), "fd"))
	if err != nil {
		return 1
	}
	defer dir.Close()
	fds, _ := dir.Readdirnames(maxFDs)
	var buf [64]byte
	for _, fd := range fds {
		links++
		n, err := unix.Readlinkat(int(dir.Fd()), fd, buf[:])
		if err != nil {
			continue
		}
		number, ok := strings.CutPrefix(string(buf[:n]), "socket:[")
		if !ok {
			continue
		}
		inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
		if err == nil {
			f(inode, fd)
		}
	}
	return links
}

// Printable makes a name safe to show, and no longer than most: a process chooses its
// own, and may choose terminal control sequences.
func Printable(name string, most int) string {
	name = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, name)
	for len(name) > most {
		_, size := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-size]
	}
	return name
}
