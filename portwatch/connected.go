package portwatch

import "net/netip"

// servers remembers UDP sockets that were seen to take datagrams from anyone. A
// server that serves one client at a time (nc -u -l, openssl s_server, iperf3)
// connects its only socket to the client that came, and the kernel's tables then
// show the same as for any client. It is a listener all the same until the
// socket is closed: what its client sends has to go on reaching it.
type servers map[uint64]server // by inode

type server struct {
	// addr is where it was bound; connecting replaces a wildcard by the one
	// address that the client is reached from.
	addr   netip.AddrPort
	missed bool // by the last scan, which may have skipped the row
}

// only returns those sockets of a scan that are listeners, the ones connected
// meanwhile at the address they had before.
func (v *servers) only(sockets []socket) []socket {
	seen := make(servers)
	kept := v.among(sockets, seen)
	for inode, old := range *v {
		if _, again := seen[inode]; !again && !old.missed {
			seen[inode] = server{addr: old.addr, missed: true}
		}
	}
	*v = seen
	return kept
}

// among is only for some sockets; those of them that are to be remembered are added to
// seen, which may be v.
func (v servers) among(sockets []socket, seen servers) []socket {
	kept := make([]socket, 0, len(sockets))
	for _, s := range sockets {
		old, known := v[s.inode]
		switch {
		case s.waiting():
		case known && s.addr.Port() == old.addr.Port():
			s.addr = old.addr
		default:
			continue
		}
		kept = append(kept, s)
		if s.proto == "udp" && s.inode != 0 {
			seen[s.inode] = server{addr: s.addr}
		}
	}
	return kept
}
