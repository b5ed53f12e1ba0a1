package integration

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// One side of the recorded session, over unix sockets: what it said then it says again, byte by byte. Made anew is what
// depends on the other end's random numbers: nonces that are repeated, proofs, the token; and the numbers that the other
// end gives to heartbeats, streams and flows. Bytes of yamux are not replayed: they are the same library's.
type replay struct {
	t    *testing.T
	said units // by both, then

	mu         sync.Mutex
	heard      units  // from the agent under test
	transcript []byte // of the handshake
	ends       net.Conn
}

func newReplay(t *testing.T) *replay {
	t.Helper()
	return &replay{t: t, said: readReleased(t), heard: make(units)}
}

// hear keeps what the agent under test says.
func (r *replay) hear(side, channel string, unit []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard.add(side, channel, unit)
}

func (r *replay) hasHeard(side, channel string) [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.heard.of(side, channel))
}

// secret is derived from the key and the handshake.
func (r *replay) secret(purpose string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	mac := hmac.New(sha256.New, wireKey[:])
	fmt.Fprintf(mac, "rum-agent %s\n%s", purpose, r.transcript)
	return mac.Sum(nil)
}

func (r *replay) token() []byte { return r.secret("stream token")[:16] }

// shake takes the transcript of a handshake from its first two frames.
func (r *replay) shake(hello, reply []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.transcript = slices.Concat(hello[11:], reply[11:11+87], reply[11+119:])
}

// with is a copy of a unit with other bytes at an offset.
func with(unit []byte, at int, other []byte) []byte {
	unit = bytes.Clone(unit)
	copy(unit[at:], other)
	return unit
}

// read reads a unit of which the length is told in its head.
func read(from io.Reader, head, at, size int) ([]byte, error) {
	unit := make([]byte, head)
	if _, err := io.ReadFull(from, unit); err != nil {
		return nil, err
	}
	unit = append(unit, make([]byte, number(unit, at, size))...)
	_, err := io.ReadFull(from, unit[head:])
	return unit, err
}

func readFrame(from io.Reader) ([]byte, error)    { return read(from, 11, 9, 2) }
func readMessage(from io.Reader) ([]byte, error)  { return read(from, 4, 0, 4) }
func readRequest(from io.Reader) ([]byte, error)  { return read(from, 2, 0, 2) }
func readAnswer(from io.Reader) ([]byte, error)   { return read(from, 3, 1, 2) }
func readDatagram(from io.Reader) ([]byte, error) { return read(from, 7, 5, 2) }

// proofAt is where the proof is in a frame with a verdict.
func proofAt(verdict []byte) int { return 11 + 35 + number(verdict, 11+33, 2) }

// listenToEnds keeps the records of the connection for ends.
func (r *replay) listenToEnds(c net.Conn, side string) {
	r.mu.Lock()
	r.ends = c
	r.mu.Unlock()
	for {
		end, err := read(c, 17, 17, 0)
		if err != nil {
			return
		}
		r.hear(side, "ends", end)
	}
}

// tellEnds tells how a stream ended then, by the number that it has now.
func (r *replay) tellEnds(side string, then, now []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, end := range r.said.of(side, "ends") {
		if bytes.HasPrefix(end, then) && len(end) == 17 {
			_, _ = r.ends.Write(with(end, 0, now))
		}
	}
}

func quietYamux() *yamux.Config {
	cfg := yamux.DefaultConfig()
	cfg.EnableKeepAlive, cfg.LogOutput = false, io.Discard
	return cfg
}

// kind is a control message's.
func kind(message []byte) byte { return message[4] }

// guest is the guest agent of then; it returns its socket.
func (r *replay) guest() (socket string) {
	socket = filepath.Join(r.t.TempDir(), "released.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		r.t.Fatal(err)
	}
	var up sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	r.t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range open {
			_ = c.Close()
		}
		up.Wait()
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			up.Go(func() {
				if err := r.serve(c); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
					r.t.Errorf("the recorded guest: %v", err)
				}
			})
			mu.Unlock()
		}
	}()
	return socket
}

func (r *replay) serve(c net.Conn) error {
	defer c.Close()
	first, err := readFrame(c)
	switch {
	case err != nil:
		return err
	case first[8] == 1:
		return r.serveLink(c, first)
	case !bytes.Equal(first[11:], r.token()):
		return fmt.Errorf("a frame of kind %d with a token of no link", first[8])
	case first[8] == 6:
		r.listenToEnds(c, "host")
		return nil
	}
	for {
		request, err := readRequest(c)
		if err != nil {
			return err
		}
		channel := "tcp"
		if request[10]&0x3f == 1 {
			channel = "udp"
		}
		r.hear("host", channel, request)
		said := r.said.of("guest", channel)
		_, _ = c.Write(said[0])
		if channel == "udp" {
			return r.serveDatagrams(c)
		}
		question, err := read(c, len(wireQuestion), 0, 0)
		if err != nil {
			return err
		}
		r.hear("host", "tcp", question)
		_, _ = c.Write(said[1])
		r.tellEnds("guest", r.said.of("host", "tcp")[1][2:10], request[2:10])
	}
}

func (r *replay) serveDatagrams(c net.Conn) error {
	for {
		datagram, err := readDatagram(c)
		if err != nil {
			return err
		}
		r.hear("host", "udp", datagram)
		if datagram[0] == 1 {
			_, _ = c.Write(with(r.said.of("guest", "udp")[1], 1, datagram[1:5]))
		}
	}
}

func (r *replay) serveLink(c net.Conn, hello []byte) error {
	nonce := hello[11+5 : 11+37]
	reply := with(r.said.of("guest", "link")[0], 11+23, nonce)
	r.shake(hello, reply)
	_, _ = c.Write(with(reply, 11+87, r.secret("guest proof")))
	proof, err := readFrame(c)
	if err != nil {
		return err
	}
	if !bytes.Equal(proof[proofAt(proof):], r.secret("host proof")) {
		return fmt.Errorf("the host does not prove the key: %x", proof)
	}
	_, _ = c.Write(with(r.said.of("guest", "link")[1], 11, nonce))
	session, err := yamux.Server(c, quietYamux())
	if err != nil {
		return err
	}
	control, err := session.Accept()
	if err != nil {
		return err
	}
	eventually(r.t, "the connection for ends", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.ends != nil })
	said := r.said.of("guest", "control")
	var pong []byte
	reached := false
	for _, message := range said {
		switch kind(message) {
		case 6:
			pong = message
		case 9: // when the host has asked for listeners
		default:
			_, _ = control.Write(message)
		}
	}
	for {
		message, err := readMessage(control)
		if err != nil {
			return err
		}
		r.hear("host", "control", message)
		switch kind(message) {
		case 5:
			ahead := binary.BigEndian.AppendUint64(nil, uint64(time.Now().Add(2*time.Hour).UnixNano()))
			_, _ = control.Write(with(with(pong, 5, message[5:13]), 16, ahead))
		case 8:
			for _, state := range said {
				if kind(state) == 9 {
					_, _ = control.Write(state)
				}
			}
			if !reached {
				reached = true
				go r.reach(session)
			}
		}
	}
}

// reach is a client in the guest of the host's service.
func (r *replay) reach(session *yamux.Session) {
	stream, err := session.Open()
	if err != nil {
		r.t.Error(err)
		return
	}
	said := r.said.of("guest", "reverse")
	_, _ = stream.Write(said[0])
	answer, err := readAnswer(stream)
	if err != nil {
		r.t.Error(err)
		return
	}
	r.hear("host", "reverse", answer)
	_, _ = stream.Write(said[1])
	r.tellEnds("guest", said[0][:8], said[0][:8])
	_ = stream.Close()
	data, err := io.ReadAll(stream)
	if err != nil {
		r.t.Error(err)
	}
	r.hear("host", "reverse", data)
}

func TestThisHostAgentServesTheGuestAgentOfTheLastRelease(t *testing.T) {
	r := newReplay(t)
	g := &guestVM{name: "dev", socket: r.guest(), key: writeKey(t)}
	answerReverse(t)
	h := startHostRules(t, g, wireRules)
	converse(t, h)
	eventually(t, "its clock, which heartbeats tell", func() bool { return h.vm(t, "dev").ClockAhead > 7000 })
	eventually(t, "two heartbeats, the client in the guest and the ends of both connections", func() bool {
		pings := slices.DeleteFunc(r.hasHeard("host", "control"), func(b []byte) bool { return kind(b) != 5 })
		return len(pings) >= 2 && len(r.hasHeard("host", "reverse")) == 2 && len(r.hasHeard("host", "ends")) >= 2
	})
	if vm := h.vm(t, "dev"); vm.State != status.Connected || vm.Auth != "psk" || vm.AgentVersion != releasedVersion {
		t.Errorf("%s, auth %s, version %s", vm.State, vm.Auth, vm.AgentVersion)
	}
	// What an agent of that release takes: it skips what it does not know, unless it has this bit.
	for _, message := range r.hasHeard("host", "control") {
		if kind(message)&0x80 != 0 {
			t.Errorf("a message of kind %#x ends a link to it", kind(message))
		}
	}
	said, heard := r.said.of("host", "tcp"), r.hasHeard("host", "tcp")
	if then, now := said[1], heard[0]; !bytes.Equal(then[12:], now[12:]) || !bytes.Equal(heard[1], said[2]) {
		t.Errorf("a stream is asked for by %x and begins with %q; then it was %x and %q", now, heard[1], then, said[2])
	}
	if then, now := r.said.of("host", "reverse"), r.hasHeard("host", "reverse"); !slices.EqualFunc(then, now, bytes.Equal) {
		t.Errorf("a connection from the guest is answered by %x; then it was %x", now, then)
	}
	sameEnds(t, r, "host")
}

// sameEnds wants the ends of the session's connections as they were then.
func sameEnds(t *testing.T, r *replay, side string) {
	t.Helper()
	for _, then := range r.said.of(side, "ends") {
		if len(then) == 17 && !slices.ContainsFunc(r.hasHeard(side, "ends"), func(now []byte) bool { return bytes.Equal(now, then) }) {
			t.Errorf("how a stream ends is told by %x; then it was %x", r.hasHeard(side, "ends"), then)
		}
	}
}
