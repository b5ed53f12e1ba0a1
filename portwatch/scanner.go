package portwatch

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/portwatch/ephemeral"
	"github.com/rum-vm/rum-agent/portwatch/events"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/portwatch/process"
	"golang.org/x/sys/unix"
)

// diagRetry is how long a Scanner stays with procfs after sock_diag failed.
// The kernel module may become loadable later, for example when the root file
// system is mounted.
const diagRetry = time.Minute

// socket is one row of the kernel's tables.
type socket struct {
	proto  string
	addr   netip.AddrPort
	remote netip.AddrPort
	// family is AF_INET or AF_INET6, whatever the address looks like.
	family uint8
	// cookie is the number that only this socket has ever had; 0 from procfs.
	cookie uint64
	// bind is how it came to its port.
	bind events.Bind
	// state is the kernel's TCP state number, also used for UDP
	// (include/net/tcp_states.h).
	state uint8
	uid   uint32
	// inode is 0 for a socket that no process owns.
	inode uint64
	// device is the index of the interface that it is bound to, 0 for none, and
	// v6only is IPV6_V6ONLY of a listener; procfs tells neither.
	device uint32
	v6only bool
}

// States from the kernel's include/net/tcp_states.h. An unconnected UDP socket
// is in stateClose, a connected one in stateEstablished.
const (
	stateEstablished = 1
	stateClose       = 7
	stateListen      = 10
)

// waiting reports whether a socket accepts connections, or datagrams from
// anyone.
func (s socket) waiting() bool {
	if s.proto == "tcp" {
		return s.state == stateListen
	}
	return s.remote.Addr().IsUnspecified() && s.remote.Port() == 0
}

// candidate reports whether a socket is a listener or may have been one before it
// was connected.
func (s socket) candidate() bool { return s.proto == "udp" || s.waiting() }

// A Scanner reads the listening sockets of the network namespace that the
// process was started in. (For a process that moves single threads between
// namespaces the answer is not defined.) The zero value is ready to use. It is
// not safe for concurrent use.
type Scanner struct {
	// Proc is where procfs is mounted. Empty means /proc, and that sock_diag
	// is preferred; with any other value only the files there are read.
	Proc string
	// Own are sockets to leave out; nil for none.
	Own *Own

	diag       *diag
	diagAfter  time.Time
	processes  process.Owners
	servers    servers
	broadcasts broadcasts
	interfaces interfaces

	loopbackDown bool // when all was listed last

	ephemeral   ephemeral.Ports // as ephemeral.Read has found it
	ephemeralAt time.Time
}

// Scan returns the TCP sockets that listen and the UDP sockets that are not
// connected to one peer, sorted by protocol, port and address, each address
// once: where several sockets have it, one that is bound to no interface. A UDP socket that this Scanner has seen unconnected stays a listener at
// its first address when it is connected later. An IPv4-mapped IPv6 address is given as IPv4. A missing IPv6 stack is
// not an error; anything that leaves the picture incomplete is, and then no
// listeners are returned. Process is left empty where it cannot be found out.
func (s *Scanner) Scan() ([]portlist.Listener, error) {
	sockets, err := s.sockets()
	if err != nil {
		return nil, err
	}
	sockets = s.servers.only(s.Own.without(sockets))
	s.processes.Root = s.root()
	s.readEphemeral()
	return s.list(sockets, s.processes.Of(inodesOf(sockets))), nil
}

// listMore is list for some sockets beside those that are listed already, while this
// machine's networks are as they were then.
func (s *Scanner) listMore(sockets []socket, owners map[uint64]process.Owner) []portlist.Listener {
	broadcasts, interfaces := s.broadcasts, s.interfaces
	listeners := s.listeners(sockets, owners)
	maps.Copy(s.broadcasts, broadcasts)
	maps.Copy(s.interfaces, interfaces)
	return listeners
}

// list makes listeners of sockets, whose owners are by inode.
func (s *Scanner) list(sockets []socket, owners map[uint64]process.Owner) []portlist.Listener {
	s.loopbackDown = s.Proc == "" && loopbackDown()
	return s.listeners(sockets, owners)
}

func (s *Scanner) listeners(sockets []socket, owners map[uint64]process.Owner) []portlist.Listener {
	// The order by inode decides who names an address that several sockets
	// share through SO_REUSEPORT: the oldest whose owner is known.
	slices.SortFunc(sockets, func(a, b socket) int { return cmp.Compare(a.inode, b.inode) })
	unusable := s.broadcasts.unusable(sockets)
	ipv6 := make(ipv6)
	devices := s.interfaces.names(sockets)
	listeners := make([]portlist.Listener, 0, len(sockets))
	for _, sock := range sockets {
		why := unusable[sock.addr]
		switch {
		case s.loopbackDown:
			why = LoopbackDown
		case why == "" && s.Proc == "" && ipv6.off(sock):
			why = IPv6Off
		}
		listeners = append(listeners, portlist.Listener{
			Proto: sock.proto, Addr: sock.addr, Process: owners[sock.inode].Process, Program: owners[sock.inode].Program,
			Interface: devices[sock.device], V6Only: sock.v6only,
			Ephemeral: sock.tookPort(s.ephemeral), Unusable: why,
			Inode: sock.inode, UID: sock.uid,
		})
	}
	slices.SortStableFunc(listeners, func(a, b portlist.Listener) int {
		if c := portlist.Compare(a, b); c != 0 {
			return c
		}
		return cmp.Or(cmp.Compare(min(len(a.Interface), 1), min(len(b.Interface), 1)),
			-cmp.Compare(min(len(a.Process), 1), min(len(b.Process), 1)))
	})
	return slices.CompactFunc(listeners, func(a, b portlist.Listener) bool { return portlist.Compare(a, b) == 0 })
}

// readEphemeral reads the settings, of the kernel that runs once a second at most, and
// reports whether they are others than before.
func (s *Scanner) readEphemeral() (changed bool) {
	now := time.Now()
	if s.Proc == "" && now.Sub(s.ephemeralAt) <= time.Second {
		return false
	}
	before := s.ephemeral
	s.ephemeral, s.ephemeralAt = ephemeral.Read(s.root()), now
	return !s.ephemeral.Equal(before)
}

// tookPort reports whether a socket has a port that the kernel gave it. Where it is not
// known how it came to the port, the number decides.
func (s socket) tookPort(e ephemeral.Ports) bool {
	switch s.bind {
	case events.BindExplicit:
		return false
	case events.BindAutomatic:
		return true
	}
	return e.Has(s.addr.Port())
}

// Close releases the netlink socket. The Scanner stays usable.
func (s *Scanner) Close() error {
	if s.diag == nil {
		return nil
	}
	err := s.diag.close()
	s.diag = nil
	return err
}

func (s *Scanner) root() string { return cmp.Or(s.Proc, "/proc") }

// sockets returns the candidates from the cheaper source that works.
func (s *Scanner) sockets() ([]socket, error) {
	if s.Proc == "" && !time.Now().Before(s.diagAfter) {
		sockets, err := s.fromDiag(wholeTables...)
		if err == nil {
			return sockets, nil
		}
		sockets, procErr := readTables(s.root(), socket.candidate)
		if procErr != nil {
			return nil, errors.Join(procErr, err)
		}
		return sockets, nil
	}
	return readTables(s.root(), socket.candidate)
}

// wholeTables are all the places there are.
var wholeTables = []place{
	{"tcp", unix.AF_INET, 0}, {"tcp", unix.AF_INET6, 0},
	{"udp", unix.AF_INET, 0}, {"udp", unix.AF_INET6, 0},
}

// fromDiag asks sock_diag. A failure keeps the Scanner from doing so for a while.
func (s *Scanner) fromDiag(places ...place) (sockets []socket, err error) {
	if s.diag == nil {
		s.diag, err = dialDiag()
	}
	for _, p := range places {
		if err == nil {
			sockets, err = s.diag.candidates(p, sockets)
		}
	}
	if err != nil {
		s.diagAfter = time.Now().Add(diagRetry)
		// A dump that broke off leaves unread messages in the socket.
		return nil, errors.Join(err, s.Close())
	}
	return sockets, nil
}

// listener asks sock_diag for one TCP listener, which may be at one of some addresses. The error is errNotAlone,
// or that of sock_diag.
func (s *Scanner) listener(cookie uint64, at ...netip.AddrPort) (found socket, err error) {
	if s.diag == nil {
		if s.diag, err = dialDiag(); err != nil {
			return socket{}, err
		}
	}
	for _, addr := range at {
		if found, err = s.diag.one(addr, cookie); err == nil || !errors.Is(err, errNotAlone) {
			break
		}
	}
	return found, err
}
