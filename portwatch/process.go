package portwatch

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/prometheus/procfs"
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
	// maxName bounds a process name in bytes; the kernel's own limit is 15,
	// worker threads of the kernel go beyond it.
	maxName = 64
)

// processes remembers which process owns which socket inode.
type processes struct {
	root  string
	known map[uint64]owner
}

// owner is a process that holds a socket; the zero value is none.
type owner struct {
	pid   int
	fd    string // the number of the descriptor
	comm  string
	tries int // of searches that found none
}

// String is "name[pid]", or "" for none.
func (o owner) String() string {
	if o.pid == 0 {
		return ""
	}
	return fmt.Sprintf("%s[%d]", printable(o.comm), o.pid)
}

// owners returns "name[pid]" by inode for those sockets whose owner is known.
// That a process still holds its socket is looked at every time, and what it is
// called by now. It sweeps /proc once if there are sockets it has not searched for
// enough, and forgets all others.
func (p *processes) owners(sockets []socket) map[uint64]string {
	known := make(map[uint64]owner, len(sockets))
	wanted := make(map[uint64]bool)
	names := make(map[int]string)
	for _, s := range sockets {
		if s.inode == 0 {
			continue
		}
		o := p.known[s.inode]
		switch {
		case o.pid != 0 && p.holdsStill(o, s.inode):
			o.comm = p.commOf(o, names)
		case o.pid != 0:
			o = owner{tries: 1}
			wanted[s.inode] = true
		case o.tries < lookupTries:
			o.tries++
			wanted[s.inode] = true
		}
		known[s.inode] = o
	}
	if len(wanted) > 0 {
		for inode, o := range newSweep(p.root).find(wanted) {
			known[inode] = o
		}
	}
	p.known = known
	found := make(map[uint64]string, len(known))
	for inode, o := range known {
		found[inode] = o.String()
	}
	return found
}

// holdsStill looks at the one descriptor that a process had for a socket.
func (p *processes) holdsStill(o owner, inode uint64) bool {
	var buf [64]byte
	n, err := unix.Readlink(filepath.Join(p.root, strconv.Itoa(o.pid), "fd", o.fd), buf[:])
	return err == nil && string(buf[:n]) == fmt.Sprintf("socket:[%d]", inode)
}

// commOf is what a process is called now: it may have become another program.
// names holds those asked for already.
func (p *processes) commOf(o owner, names map[int]string) string {
	if name, ok := names[o.pid]; ok {
		return name
	}
	name := o.comm
	if b, err := os.ReadFile(filepath.Join(p.root, strconv.Itoa(o.pid), "comm")); err == nil {
		name = strings.TrimSuffix(string(b), "\n")
	}
	names[o.pid] = name
	return name
}

// sweep is one search through /proc, which reads of each process once.
type sweep struct {
	root    string
	links   int                       // descriptors looked at
	sockets map[int]map[uint64]string // descriptors by inode, by process
	stats   map[int]procfs.ProcStat
}

func newSweep(root string) *sweep {
	return &sweep{root: root, sockets: make(map[int]map[uint64]string), stats: make(map[int]procfs.ProcStat)}
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
	return owner{pid: stat.PID, fd: fd, comm: stat.Comm}
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

// printable makes a name safe to show: a process chooses its own, and may
// choose terminal control sequences.
func printable(name string) string {
	name = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, name)
	for len(name) > maxName {
		runes := []rune(name)
		name = string(runes[:len(runes)-1])
	}
	return name
}
