package openurl

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// place is where a URL leads.
type place int

const (
	internet place = iota
	// local is this host's network, or may be: addresses that are not public, and names that no public server has.
	local
	// loopback is this host.
	loopback
)

// target is a URL that was taken apart and written anew.
type target struct {
	text  string // what a browser is given
	host  string // as it is shown: in ASCII, without the port
	port  uint16
	place place
	// addr is that of a host that is an address; the zero Addr for a name.
	addr netip.Addr
	// callbacks are the places on this host to which the page is told to send its user back, without callbacks of
	// their own.
	callbacks []*target
}

// at is host and port, as the page of this agent has them in the URLs of names.
func (t *target) at() string { return fmt.Sprintf("%s:%d", t.host, t.port) }

// origin is the URL without its path and what follows.
func (t *target) origin() string {
	scheme, rest, _ := strings.Cut(t.text, "://")
	host, _, _ := strings.Cut(rest, "/")
	return scheme + "://" + host
}

// parse reads a URL as a program in a VM gives it.
func parse(text string, here *thisHost) (*target, error) {
	t, query, err := parseOne(text, here)
	if err != nil {
		return nil, err
	}
	if err := callbacks(query, here, 0, func(c *target) {
		if !slices.ContainsFunc(t.callbacks, func(other *target) bool { return other.at() == c.at() }) {
			t.callbacks = append(t.callbacks, c)
		}
	}); err != nil {
		return nil, err
	}
	if len(t.callbacks) > maxCallbacks {
		return nil, fmt.Errorf("it names %d ports of this host, at most %d are allowed", len(t.callbacks), maxCallbacks)
	}
	return t, nil
}

// maxCallbacks bounds the ports of a URL; a login has one.
const maxCallbacks = 2

// parseOne is parse without the parameters, which are returned as they are written anew.
func parseOne(text string, here *thisHost) (*target, string, error) {
	switch {
	case len(text) > wire.MaxURL:
		return nil, "", fmt.Errorf("the URL has %d bytes, at most %d are allowed", len(text), wire.MaxURL)
	case !utf8.ValidString(text):
		return nil, "", errors.New("the URL is not UTF-8")
	case strings.ContainsFunc(text, unprintable):
		return nil, "", errors.New("the URL has a character that cannot be seen")
	case strings.Contains(text, `\`):
		return nil, "", errors.New(`the URL has a \, which browsers take for a /`)
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, "", errors.New("this is no URL")
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, "", errors.New("a page has a URL of http or https, and nothing else is opened")
	case u.Opaque != "" || u.Host == "":
		return nil, "", errors.New("the URL has no host")
	case u.User != nil:
		return nil, "", errors.New("the URL has the name of a user in it, which browsers hide: nothing is opened")
	}
	t := &target{port: 443}
	if u.Scheme == "http" {
		t.port = 80
	}
	if port := u.Port(); port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return nil, "", errors.New("the URL has no port that there could be")
		}
		t.port = uint16(n)
	}
	if err := t.setHost(u.Hostname(), strings.HasPrefix(u.Host, "["), here); err != nil {
		return nil, "", err
	}
	host := t.host
	if t.addr.Is6() {
		host = "[" + host + "]"
	}
	if u.Port() != "" {
		host += ":" + strconv.Itoa(int(t.port))
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	t.text = u.Scheme + "://" + host + escape(path)
	query := escape(u.RawQuery)
	if query != "" {
		t.text += "?" + query
	}
	if fragment := u.EscapedFragment(); fragment != "" {
		t.text += "#" + escape(fragment)
	}
	if len(t.text) > wire.MaxURL {
		return nil, "", fmt.Errorf("written out the URL has %d bytes, at most %d are allowed", len(t.text), wire.MaxURL)
	}
	return t, query, nil
}

// unprintable is true of what a URL can hide or be hidden by: control characters, blanks, and characters without a
// shape, such as those that turn the direction of text.
func unprintable(c rune) bool { return unicode.IsSpace(c) || !unicode.IsPrint(c) }

// asciiMarks may stand in a path, a query and a fragment beside letters and digits (RFC 3986), less those by which a
// shell might take a URL for more, should a desktop hand it to one; a % is that of an escape, or becomes one.
const asciiMarks = "-._~!&*+,;=:@/?"

// escape has every byte that is none of a URL's escaped.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte(asciiMarks, c) >= 0,
			c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// toASCII maps names as browsers do (UTS 46, not transitional).
var toASCII = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.CheckHyphens(false), idna.StrictDomainName(false), idna.Transitional(false))

const (
	maxName  = 253 // bytes of a name of DNS
	hostMark = "abcdefghijklmnopqrstuvwxyz0123456789-_."
)

// setHost takes a name or an address, in brackets or not, as browsers do.
func (t *target) setHost(host string, brackets bool, here *thisHost) error {
	if brackets {
		addr, err := netip.ParseAddr(host)
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return errors.New("the URL has no address of IPv6 in its brackets")
		}
		t.addr, t.host = addr, addr.String()
		return t.placeAddr(here)
	}
	if len(host) > 4*maxName { // to map one takes time by the square of its length
		return fmt.Errorf("the name of the host has %d bytes, at most %d are allowed", len(host), maxName)
	}
	name, err := toASCII.ToASCII(host)
	switch {
	case err != nil || !utf8.ValidString(host) || strings.Trim(name, hostMark) != "" || strings.Trim(name, ".") == "":
		return errors.New("the URL has no name of a host")
	case len(name) > maxName:
		return fmt.Errorf("the name of the host has %d bytes, at most %d are allowed", len(name), maxName)
	}
	bare := strings.TrimSuffix(name, ".")
	if strings.HasSuffix(bare, ".") || strings.HasPrefix(bare, ".") || strings.Contains(bare, "..") {
		return errors.New("the URL has no name of a host")
	}
	last := bare[strings.LastIndexByte(bare, '.')+1:]
	if isNumber(last) {
		if t.addr, err = parseIPv4(bare); err != nil {
			return err
		}
		t.host = t.addr.String()
		return t.placeAddr(here)
	}
	t.host = bare
	t.place = placeName(bare, last, here)
	return nil
}

// placeName is where a name leads, as far as it says so itself: which address a public name has is not asked, since
// asking tells somebody, and the answer may be another when the browser asks.
func placeName(name, last string, here *thisHost) place {
	switch {
	case last == "localhost" || here.names[name]:
		return loopback
	case name == last, last == "local", last == "internal", last == "lan", last == "home", last == "arpa", last == "test", last == "invalid":
		return local
	}
	return internet
}

var (
	// carrierNAT is shared by the customers of a provider (RFC 6598).
	carrierNAT = netip.MustParsePrefix("100.64.0.0/10")
	// localNAT64 leads to addresses of IPv4 as its network likes (RFC 8215).
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48")
)

// placeAddr is where an address leads, which one that has another in it may do by way of that. What is no address of
// one machine is an error.
func (t *target) placeAddr(here *thisHost) error {
	for _, addr := range []netip.Addr{t.addr.Unmap(), innerIPv4(t.addr)} {
		switch {
		case !addr.IsValid():
		case addr.IsUnspecified(), addr.IsMulticast(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}), addr.Is4() && addr.As4()[0] == 0:
			return fmt.Errorf("%v is the address of no machine", t.addr)
		case here.has(addr):
			t.place = loopback
		case addr.IsPrivate(), addr.IsLinkLocalUnicast(), carrierNAT.Contains(addr), localNAT64.Contains(addr), !addr.IsGlobalUnicast():
			t.place = max(t.place, local)
		}
	}
	return nil
}

// isNumber reports whether browsers take a name that ends with this label for an address of IPv4.
func isNumber(label string) bool {
	if label == "" {
		return false
	}
	if strings.Trim(label, "0123456789") == "" {
		return true
	}
	_, ok := parseNumber(label)
	return ok
}

// parseNumber reads decimal, octal and hexadecimal, as addresses may be written in a URL (the WHATWG's IPv4 parser).
func parseNumber(s string) (n uint64, ok bool) {
	base := 10
	switch {
	case strings.HasPrefix(s, "0x"):
		s, base = s[2:], 16
	case len(s) > 1 && s[0] == '0':
		s, base = s[1:], 8
	}
	if s == "" {
		return 0, base == 16
	}
	if strings.ContainsAny(s, "+-_") {
		return 0, false
	}
	n, err := strconv.ParseUint(s, base, 64)
	return n, err == nil
}

// parseIPv4 reads an address of up to four numbers, of which the last stands for all bytes that are left.
func parseIPv4(s string) (netip.Addr, error) {
	bad := errors.New("the host of the URL is a number that is no address")
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return netip.Addr{}, bad
	}
	var addr uint64
	for i, part := range parts {
		n, ok := parseNumber(part)
		left := 4 - i
		switch {
		case !ok || part == "":
			return netip.Addr{}, bad
		case i == len(parts)-1:
			if n >= 1<<(8*left) {
				return netip.Addr{}, bad
			}
			addr |= n
		case n > 255:
			return netip.Addr{}, bad
		default:
			addr |= n << (8 * (left - 1))
		}
	}
	return netip.AddrFrom4([4]byte{byte(addr >> 24), byte(addr >> 16), byte(addr >> 8), byte(addr)}), nil
}
