package portwatch

import (
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// picture is what a Watcher with events knows: the rows of the kernel's tables as they
// were when it last looked at each place, without the sockets of this program.
type picture struct {
	scanner *Scanner
	rows    []socket
	cookies map[uint64]bool // of the rows
}

// has reports whether a socket was there when it was looked for.
func (p *picture) has(cookie uint64) bool { return p.cookies[cookie] }

// anonymous reports whether there are sockets whose cookies are not known, since only
// procfs told of them: no event can be recognized as theirs.
func (p *picture) anonymous(proto string) bool {
	return slices.ContainsFunc(p.rows, func(s socket) bool { return s.proto == proto && s.cookie == 0 })
}

// look brings some places up to date, and returns the sockets that came or went.
func (p *picture) look(places []place) (changed []socket, err error) {
	rows, err := p.read(places)
	if err != nil {
		places = wholeTables
		rows, err = p.twice(places, p.scanner.sockets)
	}
	if err != nil {
		return nil, err
	}
	before := p.at(places)
	p.rows = append(slices.DeleteFunc(p.rows, func(s socket) bool { return slices.ContainsFunc(places, s.isAt) }), rows...)
	gone, come := missing(before, rows), missing(rows, before)
	for _, s := range gone {
		delete(p.cookies, s.cookie)
	}
	for _, s := range come {
		p.cookies[s.cookie] = true
	}
	return append(gone, come...), nil
}

var errNoDiag = errors.New("sock_diag has failed a short while ago")

// read asks sock_diag.
func (p *picture) read(places []place) ([]socket, error) {
	if p.scanner.Proc != "" || time.Now().Before(p.scanner.diagAfter) {
		return nil, errNoDiag
	}
	ask := func() ([]socket, error) { return p.scanner.fromDiag(places...) }
	if !slices.ContainsFunc(places, func(at place) bool { return at.port == 0 }) {
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
	for _, s := range p.rows {
		if slices.ContainsFunc(places, s.isAt) {
			rows = append(rows, s)
		}
	}
	return rows
}

// isAt reports whether a row belongs to a place.
func (s socket) isAt(p place) bool {
	return s.proto == p.proto && s.family == p.family && (p.port == 0 || p.port == s.addr.Port())
}

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
		return identity{inode: s.inode, place: place{s.proto, s.family, s.addr.Port()}}
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
