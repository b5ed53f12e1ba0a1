package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// MaxDatagram is the longest UDP payload that is carried, in bytes: what fits
// into an IPv4 packet (65,535 less 20 for IP and 8 for UDP).
const MaxDatagram = 65507

// NetworkUDP is the network of the one stream that carries the datagrams of all
// flows of a VM. Its target has no addresses: every datagram names its own.
const NetworkUDP = "udp"

// DatagramKind is what a frame is. A datagram stream carries frames: kind (1 byte), flow (4), length (2), and as
// many bytes as the length says. Whatever a frame needs to be understood is in
// it, so that any frame may be dropped, and a flow goes on over a new stream.
type DatagramKind uint8

// Values are on the wire.
const (
	DatagramToGuest DatagramKind = 1 // address in the guest, and payload
	DatagramToHost  DatagramKind = 2 // payload
	DatagramEnd     DatagramKind = 3 // host: the flow has ended; no body
	DatagramTrouble DatagramKind = 4 // guest: how many datagrams were lost (4 bytes), and why
)

// DatagramHeader is the length in bytes of what is in front of a frame's body.
const DatagramHeader = 7

// DatagramFrame is one frame. What its slices refer to is good until the next
// one is read.
type DatagramFrame struct {
	Kind    DatagramKind
	Flow    uint32
	Target  netip.AddrPort // of DatagramToGuest
	Payload []byte         // of DatagramToGuest and DatagramToHost
	Lost    uint32         // of DatagramTrouble
	Reason  string         // of DatagramTrouble
}

// Append adds the frame to b. The payload must not be longer than MaxDatagram.
func (f *DatagramFrame) Append(b []byte) []byte {
	start := len(b)
	b = append(b, byte(f.Kind), 0, 0, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(b[start+1:], f.Flow)
	switch f.Kind {
	case DatagramToGuest:
		ip := f.Target.Addr()
		if ip.Is4() {
			a := ip.As4()
			b = append(append(b, 4), a[:]...)
		} else {
			a := ip.As16()
			b = append(append(b, 16), a[:]...)
		}
		b = binary.BigEndian.AppendUint16(b, f.Target.Port())
	case DatagramTrouble:
		b = binary.BigEndian.AppendUint32(b, f.Lost)
		b = append(b, Clean(f.Reason, MaxReason)...)
	}
	b = append(b, f.Payload...)
	binary.BigEndian.PutUint16(b[start+5:], uint16(len(b)-start-DatagramHeader))
	return b
}

// MaxDatagramFrame is the length in bytes of a frame of the longest payload to an IPv6 address.
const MaxDatagramFrame = DatagramHeader + 1 + 16 + 2 + MaxDatagram

// DatagramReader reads frames.
type DatagramReader struct {
	r    *bufio.Reader
	last int // length of the frame that was read last
}

// NewDatagramReader returns a reader of frames from r.
func NewDatagramReader(r io.Reader) *DatagramReader {
	return &DatagramReader{r: bufio.NewReaderSize(r, 2*MaxDatagramFrame)}
}

// Next returns the next frame, and io.EOF between two of them; a frame of kind 0 is
// to be skipped.
func (d *DatagramReader) Next() (DatagramFrame, error) {
	_, _ = d.r.Discard(d.last)
	d.last = 0
	for want := DatagramHeader; ; {
		b, err := d.r.Peek(want)
		if err != nil {
			if len(b) > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return DatagramFrame{}, err
		}
		f, n, err := SplitDatagram(b)
		if err != nil || n <= len(b) {
			d.last = n
			return f, err
		}
		want = n
	}
}

// More reports whether the next frame is there already, so that Next neither waits nor changes what the last one's slices
// refer to.
func (d *DatagramReader) More() bool {
	b, _ := d.r.Peek(d.r.Buffered())
	if len(b) < d.last {
		return false
	}
	_, n, err := SplitDatagram(b[d.last:])
	return err == nil && n <= len(b)-d.last
}

// SplitDatagram returns the frame that b begins with, whose slices refer to b, and its length. A length that is greater
// than that of b is how much is needed to go on; a frame of kind 0 is to be skipped.
func SplitDatagram(b []byte) (f DatagramFrame, n int, err error) {
	if len(b) < DatagramHeader {
		return f, DatagramHeader, nil
	}
	if n = DatagramHeader + int(binary.BigEndian.Uint16(b[5:])); n > MaxDatagramFrame {
		return f, 0, fmt.Errorf("datagram frame of %d bytes, at most %d are allowed", n, MaxDatagramFrame)
	}
	if n <= len(b) {
		f, err = decodeDatagram(b[:n])
	}
	return f, n, err
}

// decodeDatagram is the inverse of Append. A frame of kind 0 is to be skipped.
func decodeDatagram(b []byte) (DatagramFrame, error) {
	f := DatagramFrame{Kind: DatagramKind(b[0]), Flow: binary.BigEndian.Uint32(b[1:])}
	b = b[DatagramHeader:]
	switch f.Kind {
	case DatagramToGuest:
		if len(b) < 1 || b[0] != 4 && b[0] != 16 || len(b) < int(b[0])+3 {
			return f, errors.New("datagram without a proper address")
		}
		n := 1 + int(b[0])
		ip, _ := netip.AddrFromSlice(b[1:n])
		f.Target = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[n:]))
		f.Payload = b[n+2:]
	case DatagramToHost:
		f.Payload = b
	case DatagramEnd:
		if len(b) > 0 {
			return f, fmt.Errorf("end of a flow with %d bytes too many", len(b))
		}
	case DatagramTrouble:
		if len(b) < 4 || len(b) > 4+MaxReason {
			return f, fmt.Errorf("report of lost datagrams has %d bytes", len(b))
		}
		f.Lost, f.Reason = binary.BigEndian.Uint32(b), Clean(string(b[4:]), MaxReason)
	default:
		return DatagramFrame{}, unknown("datagram frame", uint8(f.Kind))
	}
	if len(f.Payload) > MaxDatagram {
		return f, fmt.Errorf("datagram of %d bytes, at most %d are allowed", len(f.Payload), MaxDatagram)
	}
	return f, nil
}
