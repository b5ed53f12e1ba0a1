// Package ephemeral knows which ports the kernel gives to sockets that ask for none.
package ephemeral

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Ports are those ports. The zero value has only port 0, which no socket has.
type Ports struct {
	first, last uint64
	reserved    [][2]uint64
}

// Read reads the settings below procfs, which is mounted at root. Where they cannot be read, the
// range is the kernel's own default (net/ipv4/af_inet.c).
func Read(root string) Ports {
	e := Ports{first: 32768, last: 60999}
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

// Equal reports whether both are the same.
func (e Ports) Equal(o Ports) bool {
	return e.first == o.first && e.last == o.last && slices.Equal(e.reserved, o.reserved)
}

// Has reports whether a port is one of them.
func (e Ports) Has(port uint16) bool {
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
