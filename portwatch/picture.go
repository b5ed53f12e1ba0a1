package portwatch

import (
	"errors"
	"iter"
	"slices"
	"time"

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
}

func newPicture(s *Scanner) picture {
	return picture{scanner: s, rows: make(map[place][]socket), cookies: make(map[uint64]bool)}
}

// has reports whether a socket was there when it was looked for.
func (p *picture) has(cookie uint64) bool { return p.cookies[cookie] }

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
// be, and the sockets that came or went.
func (p *picture) look(places []place) (at []place, gone, come []socket, err error) {
	rows, err := p.read(places)
	if err != nil {
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
func (p *picture) read(places []place) ([]socket, error) {
	if p.scanner.Proc != "" || time.Now().Before(p.scanner.diagAfter) {
		return nil, errNoDiag
	}
	ask := func() ([]socket, error) { return p.scanner.fromDiag(places...) }
	if !slices.ContainsFunc(places, place.isTable) {
		rows, err := ask()
		return p.scanner.Own.without(rows), err
	}
	return p.twice(places, ask)
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
