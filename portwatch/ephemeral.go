package portwatch

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/rum-vm/rum-agent/portwatch/events"
	"golang.org/x/sys/unix"
)

// ephemeral is the set of ports that the kernel gives to sockets that ask for
// none.
type ephemeral struct {
	first, last uint64
	reserved    [][2]uint64
}

// readEphemeral reads the settings below procfs. Where they cannot be read, the
// range is the kernel's own default (net/ipv4/af_inet.c).
func readEphemeral(root string) ephemeral {
	e := ephemeral{first: 32768, last: 60999}
	dir := filepath.Join(root, "sys/net/ipv4")
	if b, err := readSetting(filepath.Join(dir, "ip_local_port_range")); err == nil {
		if f := strings.Fields(string(b)); len(f) == 2 {
			first, err1 := strconv.ParseUint(f[0], 10, 16)
			last, err2 := strconv.ParseUint(f[1], 10, 16)
			if err1 == nil && err2 == nil {
				e.first, e.last = first, last
			}
		}
	}
	// Those in here are left to servers: "8080,9148-9150".
	if b, err := readSetting(filepath.Join(dir, "ip_local_reserved_ports")); err == nil {
		for part := range strings.SplitSeq(strings.TrimSpace(string(b)), ",") {
			from, to, isRange := strings.Cut(part, "-")
			if !isRange {
				to = from
			}
			first, err1 := strconv.ParseUint(from, 10, 16)
			last, err2 := strconv.ParseUint(to, 10, 16)
			if err1 == nil && err2 == nil {
				e.reserved = append(e.reserved, [2]uint64{first, last})
			}
		}
	}
	return e
}

// readSetting reads a file below /proc/sys. Go's poller would take one for a descriptor that tells when
// it changes, and wake a thread for it and another one after that, each time.
func readSetting(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	var text []byte
	for {
		text = slices.Grow(text, 512)
		n, err := unix.Read(fd, text[len(text):cap(text)])
		if n <= 0 {
			return text, err
		}
		text = text[:len(text)+n]
	}
}

func (e ephemeral) equal(o ephemeral) bool {
	return e.first == o.first && e.last == o.last && slices.Equal(e.reserved, o.reserved)
}

func (e ephemeral) has(port uint16) bool {
	p := uint64(port)
	if p < e.first || p > e.last {
		return false
	}
	for _, r := range e.reserved {
		if r[0] <= p && p <= r[1] {
			return false
		}
	}
	return true
}

// took reports whether a socket has a port that the kernel gave it. Where it is not
// known how it came to the port, the number decides.
func (e ephemeral) took(s socket) bool {
	switch s.bind {
	case events.BindExplicit:
		return false
	case events.BindAutomatic:
		return true
	}
	return e.has(s.addr.Port())
}
