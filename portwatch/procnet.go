package portwatch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// readTables parses net/tcp, tcp6, udp and udp6 under the procfs mounted at
// root and returns the sockets that keep accepts. procfs resolves these paths
// without the process id, so /proc/net applies, a link to self/net: the
// namespace of the main thread.
func readTables(root string, keep func(socket) bool) ([]socket, error) {
	proc, err := procfs.NewFS(root)
	if err != nil {
		return nil, fmt.Errorf("read sockets: %w", err)
	}
	udp := func(read func() (procfs.NetUDP, error)) func() (procfs.NetTCP, error) {
		return func() (procfs.NetTCP, error) {
			rows, err := read()
			return procfs.NetTCP(rows), err
		}
	}
	var sockets []socket
	for _, table := range []struct {
		name, proto string
		family      uint8
		read        func() (procfs.NetTCP, error)
		optional    bool
	}{
		//lint:ignore SA1019 procfs is what works without a kernel module
		{"tcp", "tcp", unix.AF_INET, proc.NetTCP, false},
		//lint:ignore SA1019 procfs is what works without a kernel module
		{"tcp6", "tcp", unix.AF_INET6, proc.NetTCP6, true},
		{"udp", "udp", unix.AF_INET, udp(proc.NetUDP), false},
		{"udp6", "udp", unix.AF_INET6, udp(proc.NetUDP6), true},
	} {
		path := filepath.Join(root, "net", table.name)
		rows, err := readTable(path, table.read)
		if table.optional && errors.Is(err, fs.ErrNotExist) {
			continue // no IPv6 in this kernel
		}
		if err != nil {
			return nil, fmt.Errorf("read sockets from %s: %w", path, err)
		}
		for _, row := range rows {
			local, err := addrPort(row.LocalAddr, row.LocalPort)
			if err != nil {
				return nil, fmt.Errorf("read sockets from %s: local address: %w", path, err)
			}
			remote, err := addrPort(row.RemAddr, row.RemPort)
			if err != nil {
				return nil, fmt.Errorf("read sockets from %s: remote address: %w", path, err)
			}
			if row.St > math.MaxUint8 || row.UID > math.MaxUint32 {
				return nil, fmt.Errorf("read sockets from %s: state %d or uid %d out of range", path, row.St, row.UID)
			}
			sock := socket{
				proto: table.proto, family: table.family, addr: local, remote: remote,
				state: uint8(row.St), uid: uint32(row.UID), inode: row.Inode,
			}
			if keep(sock) {
				sockets = append(sockets, sock)
			}
		}
	}
	return sockets, nil
}

// readTable returns the rows of one file. procfs indexes past the end of a UDP
// row that is cut short, and takes a file without a header for an empty table;
// both are errors here.
func readTable(path string, read func() (procfs.NetTCP, error)) (rows procfs.NetTCP, err error) {
	defer func() {
		if p := recover(); p != nil {
			rows, err = nil, fmt.Errorf("malformed row: %v", p)
		}
	}()
	rows, err = read()
	if err != nil || len(rows) > 0 {
		return rows, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Both families begin with blanks and "sl" (net/ipv4/tcp_ipv4.c).
	head := make([]byte, 8)
	n, err := io.ReadFull(f, head)
	if err != nil || !bytes.HasPrefix(bytes.TrimLeft(head[:n], " "), []byte("sl ")) {
		return nil, fmt.Errorf("no header: %q", head[:n])
	}
	return nil, nil
}

func addrPort(ip net.IP, port uint64) (netip.AddrPort, error) {
	addr, ok := netip.AddrFromSlice(ip)
	if !ok || port > math.MaxUint16 {
		return netip.AddrPort{}, fmt.Errorf("bad address %v port %d", ip, port)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), nil
}
