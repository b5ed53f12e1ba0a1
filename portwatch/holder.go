package portwatch

import (
	"fmt"
	"net/netip"
	"os/user"
	"slices"
	"strconv"

	"github.com/rum-vm/rum-agent/portwatch/process"
)

// Holder tells who on this machine has the address that could not be bound, as
// "nginx[812]", or "uid 33 (www-data)" where the process may not be looked
// into, or "" if nobody is found (the kernel does not list sockets that are
// bound but neither listen nor are connected). proto is "tcp" or "udp".
//
// It reads the whole socket table and may search all processes: right for
// explaining a failure, too much for a loop.
func Holder(proto string, addr netip.AddrPort) string {
	return holderIn("/proc", proto, addr)
}

func holderIn(root, proto string, addr netip.AddrPort) string {
	addr = netip.AddrPortFrom(addr.Addr().Unmap().WithZone(""), addr.Port())
	rivals, err := readTables(root, func(s socket) bool {
		return s.proto == proto && s.inode != 0 && rivalry(s, addr) > 0
	})
	if err != nil || len(rivals) == 0 {
		return ""
	}
	rival := slices.MaxFunc(rivals, func(a, b socket) int { return rivalry(a, addr) - rivalry(b, addr) })
	if name := process.Find(root, rival.inode); name != "" {
		return name
	}
	uid := strconv.FormatUint(uint64(rival.uid), 10)
	if u, err := user.LookupId(uid); err == nil {
		return fmt.Sprintf("uid %s (%s)", uid, process.Printable(u.Username, process.MaxName))
	}
	return "uid " + uid
}

// rivalry tells how likely it is that a socket is what keeps addr from being
// bound: 0 is not at all. A wildcard collides with every address of its
// family. The IPv6 one usually takes IPv4 too; whether this one does is not in
// the table, so it counts least.
func rivalry(s socket, addr netip.AddrPort) int {
	if s.addr.Port() != addr.Port() {
		return 0
	}
	theirs, ours := s.addr.Addr(), addr.Addr()
	wildcard := theirs.IsUnspecified() || ours.IsUnspecified()
	sameFamily := theirs.Is4() == ours.Is4()
	score := 0
	switch {
	case theirs == ours:
		score = 3
	case sameFamily && wildcard:
		score = 2
	case !sameFamily && (theirs.IsUnspecified() && theirs.Is6() || ours.IsUnspecified() && ours.Is6()):
		score = 1
	default:
		return 0
	}
	// A connection holds its local address only against those who do not
	// share it, so a listener is the better explanation.
	if s.waiting() {
		score += 3
	}
	return score
}
