package wire

import (
	"errors"
	"fmt"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"golang.org/x/crypto/cryptobyte"
)

// A list of listeners is a 16-bit number and as many items, each behind a 16-bit
// length:
//
//	protocol   1 byte
//	address    its length (4 or 16), its bytes, 16-bit port
//	process    text
//	interface  text
//	flags      1 byte
//	inode      8 bytes
//	user       4 bytes, the owner of a block of subordinate ones; older agents have none
//
// What follows within the length is left to later versions. An item that cannot
// be used, because the guest is of a later version or because nobody can be
// connected there, is skipped. Only a list that cannot be taken apart is an error.

// SkippedItem is an item of a list that cannot be used.
type SkippedItem struct {
	// Raw is the item without its length; Reason says what is wrong with it.
	Raw, Reason string
}

// Key is the part of an item that tells it apart from others: that it is gone is
// said with protocol and address alone.
func (i SkippedItem) Key() string {
	s := cryptobyte.String(i.Raw)
	var addr cryptobyte.String
	if s.Skip(1) && s.ReadUint8LengthPrefixed(&addr) && s.Skip(2) {
		return i.Raw[:len(i.Raw)-len(s)]
	}
	return i.Raw
}

// protos are the protocols of listeners, by their number on the wire.
var protos = []string{"tcp", "udp"}

// Flags of a listener. Values are on the wire.
const (
	flagEphemeral uint8 = 1 << iota
	flagV6Only
)

func addListeners(b *cryptobyte.Builder, ls []portlist.Listener, skipped []SkippedItem) {
	b.AddUint16(uint16(len(ls) + len(skipped)))
	for _, l := range ls {
		proto, err := indexOf(protos, l.Proto)
		if err != nil {
			b.SetError(err)
			return
		}
		var flags uint8
		if l.Ephemeral {
			flags |= flagEphemeral
		}
		if l.V6Only {
			flags |= flagV6Only
		}
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint8(proto)
			addAddrPort(b, l.Addr)
			addString(b, l.Process, maxProcess)
			addString(b, l.Interface, maxInterface)
			b.AddUint8(flags)
			b.AddUint64(l.Inode)
			b.AddUint32(portlist.UserOf(l.UID))
		})
	}
	for _, i := range skipped {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(i.Raw)) })
	}
}

func readListeners(s *cryptobyte.String) (ls []portlist.Listener, skipped []SkippedItem, err error) {
	var n uint16
	if !s.ReadUint16(&n) {
		return nil, nil, errShort
	}
	if n > MaxListeners {
		return nil, nil, fmt.Errorf("%d listeners, at most %d are allowed", n, MaxListeners)
	}
	// Both grow with what is really there.
	for range n {
		var item cryptobyte.String
		if !s.ReadUint16LengthPrefixed(&item) {
			return nil, nil, errShort
		}
		if len(item) > maxItem {
			return nil, nil, fmt.Errorf("listener of %d bytes, at most %d are allowed", len(item), maxItem)
		}
		l, err := readListener(item)
		if err != nil {
			skipped = append(skipped, SkippedItem{Raw: string(item), Reason: err.Error()})
			continue
		}
		ls = append(ls, l)
	}
	return ls, skipped, nil
}

// maxItem bounds an item in bytes. The longest of this version is half as long.
const maxItem = 300

func readListener(s cryptobyte.String) (l portlist.Listener, err error) {
	var proto, flags uint8
	if !s.ReadUint8(&proto) {
		return l, errors.New("a listener of no protocol")
	}
	if int(proto) >= len(protos) {
		return l, fmt.Errorf("a listener of unknown protocol %d", proto)
	}
	l.Proto = protos[proto]
	if err := readAddrPort(&s, &l.Addr); err != nil {
		return l, fmt.Errorf("a listener: %w", err)
	}
	if why := portlist.Unusable(l.Addr); why != "" {
		return l, fmt.Errorf("%s %v: %s", l.Proto, l.Addr, why)
	}
	err = errors.Join(readString(&s, &l.Process, maxProcess), readString(&s, &l.Interface, maxInterface))
	if err == nil && (!s.ReadUint8(&flags) || !s.ReadUint64(&l.Inode)) {
		err = errShort
	}
	if err != nil {
		return l, fmt.Errorf("%s %v: %w", l.Proto, l.Addr, err)
	}
	if !s.ReadUint32(&l.UID) {
		l.UID = 0
	}
	l.Ephemeral, l.V6Only = flags&flagEphemeral != 0, flags&flagV6Only != 0
	return l, nil
}

// keysOnly is what is told of listeners that are gone.
func keysOnly(ls []portlist.Listener) []portlist.Listener {
	var keys []portlist.Listener
	for _, l := range ls {
		keys = append(keys, portlist.Listener{Proto: l.Proto, Addr: l.Addr})
	}
	return keys
}
