package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
)

// addAddrPort writes an address as its length (4 or 16), its bytes and the port.
func addAddrPort(b *cryptobyte.Builder, a netip.AddrPort) {
	ip := a.Addr().AsSlice()
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(ip) })
	b.AddUint16(a.Port())
}

func readAddrPort(s *cryptobyte.String, a *netip.AddrPort) error {
	var (
		ip   cryptobyte.String
		port uint16
	)
	if !s.ReadUint8LengthPrefixed(&ip) || !s.ReadUint16(&port) {
		return errors.New("address is cut short")
	}
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return fmt.Errorf("address of %d bytes, want 4 or 16", len(ip))
	}
	*a = netip.AddrPortFrom(addr, port)
	return nil
}

// addPath writes the path of a socket behind its length in one byte. A path is
// taken as it is: what is shown of it is made printable where it is shown.
func addPath(b *cryptobyte.Builder, p string) {
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(p)) })
}

func readPath(s *cryptobyte.String, p *string) error {
	var v cryptobyte.String
	if !s.ReadUint8LengthPrefixed(&v) {
		return errors.New("path is cut short")
	}
	*p = string(v)
	return checkSocketPath(*p)
}

// addString writes at most limit bytes of s behind a 16-bit length.
func addString(b *cryptobyte.Builder, s string, limit int) {
	s = Clean(s, limit)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(s)) })
}

func readString(s *cryptobyte.String, out *string, limit int) error {
	var v cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&v) {
		return errors.New("text is cut short")
	}
	if len(v) > limit {
		return fmt.Errorf("text of %d bytes, at most %d are allowed", len(v), limit)
	}
	*out = Clean(string(v), limit)
	return nil
}

// Clean makes text from the peer safe to log and to print: valid UTF-8 without
// control characters, at most limit bytes.
func Clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	for len(s) > limit {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

// indexOf is the wire number of a name.
func indexOf(names []string, name string) (uint8, error) {
	i := slices.Index(names, name)
	if i < 0 {
		return 0, fmt.Errorf("unknown network %q, want one of %q", name, names)
	}
	return uint8(i), nil
}
