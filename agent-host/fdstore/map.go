package fdstore

import (
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const mapPrefix = "map-"

func mapName(n int) string { return mapPrefix + strconv.Itoa(n) }

// mapNumber reports whether a name is a map's, and which.
func mapNumber(name string) (n int, is bool) {
	digits, is := strings.CutPrefix(name, mapPrefix)
	n, err := strconv.Atoi(digits)
	return n, is && err == nil
}

// writeMap writes who has what into a file without a name, which is never changed: a map is there as a whole, or the one
// before it. It needs s.mu.
func (s *Store) writeMap() (fd int, err error) {
	all := make([]*entry, 0, len(s.entries))
	for _, e := range s.entries {
		all = append(all, e)
	}
	text, err := json.Marshal(all)
	if err != nil {
		return -1, err
	}
	fd, err = unix.MemfdCreate("rum-host-agent-listeners", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	for len(text) > 0 {
		n, err := unix.Write(fd, text)
		if err != nil {
			_ = unix.Close(fd)
			return -1, os.NewSyscallError("write", err)
		}
		text = text[n:]
	}
	return fd, nil
}

// readMaps reads the newest map among descriptors, has it replaced, and the others removed.
func (s *Store) readMaps(passed []*os.File) map[Place]string {
	var newest *os.File
	for _, f := range passed {
		n, is := mapNumber(f.Name())
		switch {
		case !is:
		case newest == nil || n > s.mapIndex:
			if newest != nil {
				s.removed = append(s.removed, newest.Name())
			}
			newest, s.mapIndex = f, n
		default:
			s.removed = append(s.removed, f.Name())
		}
	}
	owners := make(map[Place]string)
	if newest == nil {
		return owners
	}
	var all []entry
	text, err := io.ReadAll(io.NewSectionReader(newest, 0, maxMap))
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		s.log.Warn("what listeners are from the agent before is not known", "error", err)
	}
	for _, e := range all {
		owners[e.Place] = e.Owner
	}
	return owners
}

// maxMap is far more than [Max] entries take.
const maxMap = 16 << 20

var errNoSocket = errors.New("no socket of an address")

// placeOf is where a socket is.
func placeOf(f *os.File) (p Place, err error) {
	c, err := f.SyscallConn()
	if err != nil {
		return p, err
	}
	cerr := c.Control(func(fd uintptr) { p, err = placeOfFD(int(fd)) })
	if cerr != nil {
		return p, cerr
	}
	return p, err
}

func placeOfFD(fd int) (p Place, err error) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return p, os.NewSyscallError("getsockopt", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return p, os.NewSyscallError("getsockname", err)
	}
	p.Proto = "tcp"
	if kind == unix.SOCK_DGRAM {
		p.Proto = "udp"
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		p.At = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		p.At = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrUnix:
		p.Proto, p.At = "unix", a.Name
	default:
		return p, errNoSocket
	}
	return p, nil
}
