package wire

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

// Target is what a stream is to be connected to inside the guest.
type Target struct {
	// Network is "tcp", "unix" ([UnixTarget]), "udp" for a datagram stream
	// ([UDPTarget]), or "agent" for the guest agent itself.
	Network string
	// Addrs are tried in order until one answers; 1 to 8 of them for tcp, else
	// none. A wildcard address means the guest's loopback of that family.
	Addrs []netip.AddrPort
	// Path is an absolute path of at most MaxSocketPath bytes for unix, what the agent
	// is to do for agent, else empty.
	Path string
	// Args is what is said to the agent; nothing for other networks.
	Args []byte
}

// String is the target for a log line or an error.
func (t Target) String() string {
	switch t.Network {
	case NetworkUDP:
		return "a datagram stream"
	case NetworkUnix:
		return "unix " + Clean(t.Path, MaxSocketPath)
	case NetworkAgent:
		return "the agent's " + Clean(t.Path, maxService)
	}
	parts := make([]string, len(t.Addrs))
	for i, a := range t.Addrs {
		parts[i] = a.String()
	}
	return t.Network + " " + strings.Join(parts, " or ")
}

// Check reports what is wrong with a target.
func (t Target) Check() error {
	switch n := len(t.Addrs); {
	case t.Network != NetworkTCP && n > 0:
		return fmt.Errorf("%s target has %d addresses, want none", t.Network, n)
	case t.Network == NetworkTCP && (n == 0 || n > MaxTargetAddrs):
		return fmt.Errorf("target has %d addresses, want 1 to %d", n, MaxTargetAddrs)
	case t.Network == NetworkAgent:
		return checkService(t.Path, t.Args)
	case len(t.Args) > 0:
		return fmt.Errorf("%s target has arguments", t.Network)
	case t.Network == NetworkUnix:
		return checkSocketPath(t.Path)
	case t.Path != "":
		return fmt.Errorf("%s target has a path", t.Network)
	}
	return nil
}

// MaxTargetAddrs bounds what the peer can make the guest dial for one stream.
const MaxTargetAddrs = 8

// maxOpen bounds an encoded open request: 8 addresses of 19 bytes each, a path, or
// what is said to the agent, and the fixed part fit with room to spare.
const maxOpen = 256

// OpenRequest is the first thing on a stream, host to guest.
type OpenRequest struct {
	ID     uint64
	Target Target
	// Reuse asks for the raw connection to be used again after the stream: no
	// side shuts it down, and the guest tells when it has read all of it.
	Reuse bool
	// HandOver says that nobody will tell how the stream ends: once it has been answered, the
	// raw connection is what it is to the kernel at both ends, and no link's. It is for guests
	// with that feature only, and for raw connections.
	HandOver bool

	// Proof is that it is the host's order; none for what takes none.
	Proof []byte
}

// These are added to the network's number.
const (
	reuseFlag    = 0x80
	handOverFlag = 0x40
)

// NetworkTCP is the network of a target that is a TCP port.
const NetworkTCP = "tcp"

// networks by their number on the wire.
var networks = []string{NetworkTCP, NetworkUDP, NetworkUnix, NetworkAgent}

// Append adds the request, with a 16-bit length in front, to b.
func (o OpenRequest) Append(b []byte) ([]byte, error) {
	if err := o.Target.Check(); err != nil {
		return nil, err
	}
	builder := cryptobyte.NewBuilder(b)
	builder.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		o.encode(b)
		addField(b, fieldProof, o.Proof)
	})
	return builder.Bytes()
}

// Order is what the proof is of, of a request with a target that was checked.
func (o OpenRequest) Order() []byte {
	b := cryptobyte.NewBuilder(nil)
	o.encode(b)
	return b.BytesOrPanic()
}

func (o OpenRequest) encode(b *cryptobyte.Builder) {
	network, err := indexOf(networks, o.Target.Network)
	if err != nil {
		b.SetError(err)
		return
	}
	if o.Reuse {
		network |= reuseFlag
	}
	if o.HandOver {
		network |= handOverFlag
	}
	b.AddUint64(o.ID)
	b.AddUint8(network)
	b.AddUint8(uint8(len(o.Target.Addrs)))
	for _, a := range o.Target.Addrs {
		addAddrPort(b, a)
	}
	switch o.Target.Network {
	case NetworkUnix:
		addPath(b, o.Target.Path)
	case NetworkAgent:
		addService(b, o.Target)
	}
}

// decodeOpen is the inverse of Append, without the length in front.
func decodeOpen(b []byte) (OpenRequest, error) {
	var (
		s       = cryptobyte.String(b)
		o       OpenRequest
		network uint8
		n       uint8
	)
	if !s.ReadUint64(&o.ID) || !s.ReadUint8(&network) || !s.ReadUint8(&n) {
		return o, errors.New("open request is cut short")
	}
	o.Reuse, o.HandOver = network&reuseFlag != 0, network&handOverFlag != 0
	network &^= reuseFlag | handOverFlag
	if int(network) >= len(networks) {
		return o, fmt.Errorf("open request: unknown network %d", network)
	}
	if n > MaxTargetAddrs {
		return o, fmt.Errorf("open request has %d addresses, at most %d are allowed", n, MaxTargetAddrs)
	}
	o.Target.Network = networks[network]
	o.Target.Addrs = make([]netip.AddrPort, n)
	for i := range o.Target.Addrs {
		if err := readAddrPort(&s, &o.Target.Addrs[i]); err != nil {
			return o, fmt.Errorf("open request: %w", err)
		}
	}
	var err error
	switch o.Target.Network {
	case NetworkUnix:
		err = readPath(&s, &o.Target.Path)
	case NetworkAgent:
		err = readService(&s, &o.Target)
	}
	if err != nil {
		return o, fmt.Errorf("open request: %w", err)
	}
	err = readFields(&s, func(kind uint8, body []byte) bool {
		if kind == fieldProof {
			o.Proof = body
		}
		return kind == fieldProof
	})
	if err != nil {
		return o, fmt.Errorf("open request: %w", err)
	}
	if err := o.Target.Check(); err != nil {
		return o, fmt.Errorf("open request: %w", err)
	}
	return o, nil
}

// ReadOpen reads one open request and not a byte more.
func ReadOpen(r io.Reader) (OpenRequest, error) {
	var buf [maxOpen]byte
	if _, err := io.ReadFull(r, buf[:2]); err != nil {
		return OpenRequest{}, err
	}
	n := int(buf[0])<<8 | int(buf[1])
	if n > maxOpen {
		return OpenRequest{}, fmt.Errorf("open request of %d bytes, at most %d are allowed", n, maxOpen)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return OpenRequest{}, fmt.Errorf("open request is cut short: %w", err)
	}
	return decodeOpen(buf[:n])
}

// SplitOpen takes an open request off the beginning of b. ok is false if it is
// not whole or not sound.
func SplitOpen(b []byte) (o OpenRequest, rest []byte, ok bool) {
	if len(b) < 2 {
		return o, nil, false
	}
	n := 2 + int(b[0])<<8 + int(b[1])
	if n > 2+maxOpen || n > len(b) {
		return o, nil, false
	}
	o, err := decodeOpen(b[2:n])
	return o, b[n:], err == nil
}

// AnswerStatus is how the guest's dial ended.
type AnswerStatus uint8

// The answers of the guest. Values are on the wire.
const (
	AnswerOK          AnswerStatus = 0
	AnswerRefused     AnswerStatus = 1 // nothing listens there
	AnswerTimedOut    AnswerStatus = 2 // no reply within the guest's limit
	AnswerDenied      AnswerStatus = 3 // not an address of the guest
	AnswerUnreachable AnswerStatus = 4 // any other failure of the dial
	AnswerUnchanged   AnswerStatus = 5 // what is ordered is so already
)

// String is the status in words.
func (a AnswerStatus) String() string {
	switch a {
	case AnswerOK:
		return "ok"
	case AnswerRefused:
		return "refused"
	case AnswerTimedOut:
		return "timed out"
	case AnswerDenied:
		return "denied"
	case AnswerUnreachable:
		return "unreachable"
	case AnswerUnchanged:
		return "unchanged"
	}
	return fmt.Sprintf("answer %d", uint8(a))
}

// AnswerError is what a stream's Read returns when the guest could not connect
// to the target.
type AnswerError struct {
	Status AnswerStatus
	// Reason is the guest's own words: printable, at most 512 bytes.
	Reason string
}

func (e *AnswerError) Error() string {
	if e.Reason == "" {
		return "guest: " + e.Status.String()
	}
	return "guest: " + e.Status.String() + ": " + e.Reason
}

// MaxReason bounds a reason, in bytes.
const MaxReason = 512

// AppendAnswer adds the answer to b.
func AppendAnswer(b []byte, status AnswerStatus, reason string) []byte {
	reason = Clean(reason, MaxReason)
	b = append(b, byte(status), byte(len(reason)>>8), byte(len(reason)))
	return append(b, reason...)
}

// AnswerReader reads one answer and not a byte more. It can be interrupted by a
// deadline and called again.
type AnswerReader struct {
	buf []byte
}

// Read reads from r, and returns nil for ok, an *AnswerError for any other answer.
func (a *AnswerReader) Read(r io.Reader) error {
	const header = 3
	if err := a.fill(r, header); err != nil {
		return err
	}
	n := int(a.buf[1])<<8 | int(a.buf[2])
	if n > MaxReason {
		return fmt.Errorf("answer has a reason of %d bytes, at most %d are allowed", n, MaxReason)
	}
	if err := a.fill(r, header+n); err != nil {
		return err
	}
	status, reason := AnswerStatus(a.buf[0]), string(a.buf[header:])
	a.buf = nil
	if status != AnswerOK {
		return &AnswerError{Status: status, Reason: Clean(reason, MaxReason)}
	}
	return nil
}

// fill reads until n bytes are there.
func (a *AnswerReader) fill(r io.Reader, n int) error {
	have := len(a.buf)
	a.buf = append(a.buf, make([]byte, max(0, n-have))...)
	for have < n {
		got, err := r.Read(a.buf[have:])
		have += got
		if err != nil && have < n {
			a.buf = a.buf[:have]
			if errors.Is(err, io.EOF) {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}
