package main

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
)

// The wire as the agents speak it, written down a second time on purpose: what encodes
// for an honest agent refuses what is wrong.

var magic = []byte{0xff, 'R', 'U', 'M', '\r', '\n', 0x1a, '\n'}

// Kinds of frames and of control messages.
const (
	frameHello, frameReply, frameProof, frameReady, frameRaw, frameEnds = 1, 2, 3, 4, 5, 6

	messageHello, messageSnapshot, messageDelta, messageScanError = 1, 2, 3, 4
	messagePing, messagePong, messageReverseState                 = 5, 6, 9
)

func frame(kind byte, body []byte) []byte {
	b := append(append([]byte(nil), magic...), kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

func readFrame(r io.Reader) (kind byte, body []byte, err error) {
	var head [11]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	body = make([]byte, binary.BigEndian.Uint16(head[9:]))
	_, err = io.ReadFull(r, body)
	return head[8], body, err
}

// shake runs the guest's side of a handshake without a key; hello is the host's.
func shake(c net.Conn, r io.Reader, hello []byte) error {
	const nonce = 32
	hostNonce := hello[5 : 5+nonce]
	var mine [nonce]byte
	_, _ = rand.Read(mine[:])
	reply := []byte{0, 2, 0, 2, 0, 2, 0}       // version, lowest, highest, no key
	reply = append(reply, mine[:16]...)        // instance
	reply = append(reply, hostNonce...)        // whom it answers
	reply = append(reply, mine[:]...)          // nonce
	reply = append(reply, make([]byte, 40)...) // no proof, no features
	if _, err := c.Write(frame(frameReply, reply)); err != nil {
		return err
	}
	for {
		kind, _, err := readFrame(r)
		if err != nil {
			return err
		}
		if kind == frameProof {
			break
		}
	}
	ready := append(append([]byte(nil), hostNonce...), 0, 0, 0)
	_, err := c.Write(frame(frameReady, append(ready, make([]byte, 32)...)))
	return err
}

// mux is a yamux frame.
func mux(kind byte, flags uint16, id, length uint32, body []byte) []byte {
	b := []byte{0, kind}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, length)
	return append(b, body...)
}

const muxData, muxWindow, muxPing = 0, 1, 2
const muxSYN, muxACK, muxRST = 1, 2, 8

func message(kind byte, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(body)))
	return append(append(b, kind), body...)
}

func text(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...)
}

// listener is what is said of one beside its address.
type listener struct {
	process, iface string
	flags          byte // 1: its port is ephemeral, 2: no IPv4
	uid            uint32
}

// listeners is a list of n listeners of 0.0.0.0 from a port on.
func listeners(proto byte, first, n int) []byte {
	return listenersWith(proto, make([]byte, 4), first, n, func(int) listener { return listener{process: "evil[666]"} })
}

// listenersWith is a list of n listeners of an address from a port on.
func listenersWith(proto byte, ip []byte, first, n int, with func(i int) listener) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(n))
	for i := range n {
		l := with(i)
		item := append(append([]byte{proto, byte(len(ip))}, ip...), byte((first+i)>>8), byte(first+i))
		item = append(item, text(l.process)...)
		item = append(item, text(l.iface)...)
		item = append(append(item, l.flags), number(0)...)
		item = binary.BigEndian.AppendUint32(item, l.uid)
		b = binary.BigEndian.AppendUint16(b, uint16(len(item)))
		b = append(b, item...)
	}
	return b
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// session is the guest's end of a yamux session.
type session struct {
	conn net.Conn

	mu     sync.Mutex
	more   sync.Cond
	begun  bool // there is a control stream; what is sent there before is lost
	credit int  // bytes that the host takes on it
	ended  bool
	opened func(id uint32) // a stream of the host; nil for nothing
	// polite is to answer heartbeats and to grant windows on the control stream, as an
	// honest guest does; heard is what has been read of a message there.
	polite bool
	heard  []byte
	// granted is how many bytes of each stream the host has taken.
	granted map[uint32]int
}

func newSession(c net.Conn) *session {
	s := &session{conn: c, credit: 256 << 10, granted: make(map[uint32]int)}
	s.more.L = &s.mu
	return s
}

// read follows what the host sends until it ends.
func (s *session) read(r io.Reader) {
	defer func() {
		s.mu.Lock()
		s.ended = true
		s.more.Broadcast()
		s.mu.Unlock()
	}()
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		var h [12]byte
		if _, err := io.ReadFull(in, h[:]); err != nil {
			return
		}
		id, length := binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:])
		switch h[1] {
		case muxData:
			if s.polite && id == 1 {
				if s.hear(in, length) != nil {
					return
				}
				continue
			}
			if _, err := io.CopyN(io.Discard, in, int64(length)); err != nil {
				return
			}
		case muxWindow:
			s.mu.Lock()
			s.granted[id] += int(length)
			if id == 1 {
				s.credit += int(length)
			}
			s.more.Broadcast()
			s.mu.Unlock()
		}
		if h[3]&muxSYN != 0 && id == 1 {
			s.begin()
		}
		if h[3]&muxSYN != 0 && id != 1 && s.opened != nil {
			go s.opened(id)
		}
	}
}

// begin lets the control stream be written to.
func (s *session) begin() {
	s.mu.Lock()
	s.begun = true
	s.more.Broadcast()
	s.mu.Unlock()
}

// hear takes in so much of the control stream.
func (s *session) hear(in io.Reader, length uint32) error {
	b := make([]byte, length)
	if _, err := io.ReadFull(in, b); err != nil {
		return err
	}
	if _, err := s.conn.Write(mux(muxWindow, 0, 1, length, nil)); err != nil {
		return err
	}
	for s.heard = append(s.heard, b...); len(s.heard) > 4; {
		end := 4 + int(binary.BigEndian.Uint32(s.heard))
		if len(s.heard) < end {
			break
		}
		if kind, body := s.heard[4], s.heard[5:end]; kind == messagePing {
			pong := message(messagePong, body)
			go func() { _ = s.control(pong) }() // it may wait for what is read here
		}
		s.heard = s.heard[end:]
	}
	return nil
}

// control sends messages on the control stream, as fast as the host grants windows.
func (s *session) control(messages []byte) error { return s.drip(messages, 60_000) }

// drip is control with so many bytes in each frame.
func (s *session) drip(messages []byte, size int) error {
	for len(messages) > 0 {
		n := min(len(messages), 60_000)
		s.mu.Lock()
		for (s.credit < n || !s.begun) && !s.ended {
			s.more.Wait()
		}
		s.credit -= n
		ended := s.ended
		s.mu.Unlock()
		if ended {
			return io.EOF
		}
		var frames []byte
		for part := range slices.Chunk(messages[:n], size) {
			frames = append(frames, mux(muxData, 0, 1, uint32(len(part)), part)...)
		}
		if _, err := s.conn.Write(frames); err != nil {
			return err
		}
		messages = messages[n:]
	}
	return nil
}
