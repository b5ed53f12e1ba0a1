package portwatch

import (
	"errors"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/portwatch/events"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"golang.org/x/sys/unix"
)

// picture is what a Watcher with events knows: the rows of the kernel's tables as they
// were when it last looked at each place, without the sockets of this program. A guest
// may have thousands, so that what happens at one port must not cost work for all.
type picture struct {
	scanner *Scanner
	rows    map[place][]socket // by the port where they are
	count   int
	cookies map[uint64]bool // of the rows
	procfs  bool            // the rows were read from procfs
}

func newPicture(s *Scanner) picture {
	return picture{scanner: s, rows: make(map[place][]socket), cookies: make(map[uint64]bool)}
}

// has reports whether a socket was there when it was looked for.
func (p *picture) has(cookie uint64) bool { return p.cookies[cookie] }

// user is whose socket an event is about, events.NoUser if it is not among the rows.
func (p *picture) user(e event) uint32 {
	for _, s := range p.rows[e.place] {
		if e.cookie == 0 || e.cookie == s.cookie {
			return portlist.UserOf(s.uid)
		}
	}
	return events.NoUser
}

// anonymous reports whether there are sockets whose cookies are not known, since only
// procfs told of them: no event can be recognized as theirs.
func (p *picture) anonymous(proto string) bool {
	for at, rows := range p.rows {
		if at.proto == proto && slices.ContainsFunc(rows, func(s socket) bool { return s.cookie == 0 }) {
			return true
		}
	}
	return false
}

// look brings some places up to date, and returns them, or all where only that could
// be, and the sockets that came or went. What waits for a look there says what to look for.
func (p *picture) look(places []place, waits map[place]*pending) (at []place, gone, come []socket, err error) {
	rows, err := p.read(places, waits)
	if p.procfs = err != nil; err != nil {
		places = wholeTables
		rows, err = p.twice(places, p.scanner.sockets)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	before := p.at(places)
	for _, s := range before {
		delete(p.rows, s.place())
	}
	for _, s := range rows {
		p.rows[s.place()] = append(p.rows[s.place()], s)
	}
	p.count += len(rows) - len(before)
	gone, come = missing(before, rows), missing(rows, before)
	for _, s := range gone {
		delete(p.cookies, s.cookie)
	}
	for _, s := range come {
		p.cookies[s.cookie] = true
	}
	return places, gone, come, nil
}

var errNoDiag = errors.New("sock_diag has failed a short while ago")

// read asks sock_diag.
func (p *picture) read(places []place, waits map[place]*pending) (rows []socket, err error) {
	if p.scanner.Proc != "" || time.Now().Before(p.scanner.diagAfter) {
		return nil, errNoDiag
	}
	if slices.ContainsFunc(places, place.isTable) {
		return p.twice(places, func() ([]socket, error) { return p.scanner.fromDiag(places...) })
	}
	for _, at := range places {
		some, known := p.rowsAfter(at, waits[at])
		if !known {
			if some, err = p.scanner.fromDiag(at); err != nil {
				return nil, err
			}
		}
		rows = append(rows, some...)
	}
	return p.scanner.Own.without(rows), nil
}

// maxLookups is how many sockets of a place are asked for one by one.
const maxLookups = 4

// rowsAfter makes the rows of a place what they are after the events that it waits for, by asking the kernel for
// these sockets alone: for the rows of a port it walks over all that listen on this machine, and a table of
// thousands of empty chains. known is whether that told everything. It does not where a socket shares its
// address with others, and where it is neither at any address nor at loopback's.
func (p *picture) rowsAfter(at place, waits *pending) (rows []socket, known bool) {
	if at.proto != "tcp" || p.procfs || waits == nil || waits.blind || len(waits.want) == 0 || len(waits.want) > maxLookups {
		return nil, false
	}
	rows = slices.Clone(p.rows[at])
	for cookie, there := range waits.want {
		i := slices.IndexFunc(rows, func(s socket) bool { return s.cookie == cookie })
		switch {
		case there && i < 0:
			s, err := p.scanner.listener(cookie, usualAddresses(at)...)
			if err != nil || s.place() != at {
				return nil, false
			}
			rows = append(rows, s)
		case !there && i >= 0:
			if _, err := p.scanner.listener(cookie, rows[i].addr); !errors.Is(err, unix.ENOENT) {
				return nil, false
			}
			rows = slices.Delete(rows, i, i+1)
		}
	}
	return rows, true
}

// usualAddresses are those at which most listeners of a place are.
func usualAddresses(at place) []netip.AddrPort {
	if at.family == unix.AF_INET6 {
		return []netip.AddrPort{netip.AddrPortFrom(netip.IPv6Unspecified(), at.port), netip.AddrPortFrom(netip.IPv6Loopback(), at.port)}
	}
	return []netip.AddrPort{
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.port), netip.AddrPortFrom(netip.IPv4Unspecified(), at.port),
	}
}

// twice reads tables, and once more where a socket is missing. The kernel hands out
// large tables in pieces and may skip a row when a neighbour goes away between two of
// them, so only what is missing twice is gone.
func (p *picture) twice(places []place, read func() ([]socket, error)) ([]socket, error) {
	first, err := read()
	if err != nil {
		return nil, err
	}
	first = p.scanner.Own.without(first)
	if len(missing(p.at(places), first)) == 0 {
		return first, nil
	}
	second, err := read()
	if err != nil {
		return nil, err
	}
	second = p.scanner.Own.without(second)
	return append(second, missing(first, second)...), nil
}

// at returns the rows of some places.
func (p *picture) at(places []place) (rows []socket) {
	for _, some := range p.in(places) {
		rows = append(rows, some...)
	}
	return rows
}

// in is the rows of some places, by port.
func (p *picture) in(places []place) iter.Seq2[place, []socket] {
	return func(yield func(place, []socket) bool) {
		if slices.ContainsFunc(places, place.isTable) {
			for at, rows := range p.rows {
				if slices.ContainsFunc(places, at.isIn) && !yield(at, rows) {
					return
				}
			}
			return
		}
		for _, at := range places {
			if rows := p.rows[at]; len(rows) > 0 && !yield(at, rows) {
				return
			}
		}
	}
}

// place is the port where a socket is.
func (s socket) place() place { return place{s.proto, s.family, s.addr.Port()} }

// place is what the kernel is asked about at a time: a port of one protocol and family.
type place struct {
	proto  string
	family uint8
	port   uint16
}

// isTable reports whether a place is all ports.
func (p place) isTable() bool { return p.port == 0 }

// isIn reports whether a port is in a place.
func (p place) isIn(o place) bool {
	return p.proto == o.proto && p.family == o.family && (o.isTable() || p.port == o.port)
}

// isAt reports whether a row belongs to a place.
func (s socket) isAt(p place) bool { return s.place().isIn(p) }

// missing returns the sockets of before that are not in after.
func missing(before, after []socket) (gone []socket) {
	type identity struct {
		cookie, inode uint64
		place         place
	}
	of := func(s socket) identity {
		if s.cookie != 0 {
			return identity{cookie: s.cookie}
		}
		return identity{inode: s.inode, place: s.place()}
	}
	there := make(map[identity]bool, len(after))
	for _, s := range after {
		there[of(s)] = true
	}
	for _, s := range before {
		if !there[of(s)] {
			gone = append(gone, s)
		}
	}
	return gone
}

// tables are the places that are all of a protocol.
func tables(proto string) []place {
	return []place{{proto, unix.AF_INET, 0}, {proto, unix.AF_INET6, 0}}
}
