package integration

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
)

// host is the host agent of then, linked to a guest agent that listens at a socket.
func (r *replay) host(socket string) (session *yamux.Session, control net.Conn) {
	r.t.Helper()
	c := r.dial(socket)
	hello := r.said.of("host", "link")[0]
	_, _ = c.Write(hello)
	reply := must(readFrame(c))(r.t)
	if reply[8] != 2 || number(reply, 11, 2) != 2 || !bytes.Equal(reply[11+23:11+55], hello[11+5:11+37]) {
		r.t.Fatalf("the guest replies %x", reply)
	}
	r.shake(hello, reply)
	if !bytes.Equal(reply[11+87:11+119], r.secret("guest proof")) {
		r.t.Fatalf("the guest does not prove the key: %x", reply)
	}
	proof := with(r.said.of("host", "link")[1], 11, reply[11+55:11+87])
	_, _ = c.Write(with(proof, proofAt(proof), r.secret("host proof")))
	if ready := must(readFrame(c))(r.t); ready[8] != 4 || ready[11+32] != 0 {
		r.t.Fatalf("the guest says %x instead of ready", ready)
	}
	session, err := yamux.Client(c, quietYamux())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = session.Close() })
	if control, err = session.Open(); err != nil {
		r.t.Fatal(err)
	}
	ends := r.dial(socket)
	_, _ = ends.Write(with(r.said.of("host", "ends")[0], 11, r.token()))
	go r.listenToEnds(ends, "guest")
	return session, control
}

func (r *replay) dial(socket string) net.Conn {
	r.t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

// open asks for a stream as it was asked for then.
func (r *replay) open(socket, channel string) net.Conn {
	r.t.Helper()
	c, said := r.dial(socket), r.said.of("host", channel)
	_, _ = c.Write(with(said[0], 11, r.token()))
	_, _ = c.Write(said[1])
	if answer := must(readAnswer(c))(r.t); !bytes.Equal(answer, r.said.of("guest", channel)[0]) {
		r.t.Fatalf("%s is answered by %x", channel, answer)
	}
	return c
}

// proved is an order of then with the proof that it takes now.
func (r *replay) proved(order []byte) []byte {
	at := len(order) - 40 // u64 counter and 32 bytes, in the last field
	mac := hmac.New(sha256.New, r.secret("orders"))
	fmt.Fprintf(mac, "reverse\n%s%s", order[at:at+8], order[5:at-3])
	return with(order, at+8, mac.Sum(nil))
}

func must[V any](v V, err error) func(*testing.T) V {
	return func(t *testing.T) V {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// listed returns how the items of a snapshot begin: protocol, address, port.
func listed(snapshot []byte) (heads [][]byte) {
	items := snapshot[5+8+2:]
	for range number(snapshot, 5+8, 2) {
		item := take(&items, 2+number(items, 0, 2))
		heads = append(heads, item[2:2+1+1+number(item, 3, 1)+2])
	}
	return heads
}

func TestThisGuestAgentServesTheHostAgentOfTheLastRelease(t *testing.T) {
	r := newReplay(t)
	g := &guestVM{namespace: newNamespace(t), name: "dev", socket: filepath.Join(t.TempDir(), "dev.sock"), key: writeKey(t)}
	serveWire(t, g.namespace)
	g.startAgent(t)
	eventually(t, "the guest agent", func() bool { _, err := os.Stat(g.socket); return err == nil })
	session, control := r.host(g.socket)
	for _, message := range r.said.of("host", "control") {
		if kind(message) == 8 {
			message = r.proved(message)
		}
		_, _ = control.Write(message)
	}
	go func() {
		for {
			message, err := readMessage(control)
			if err != nil {
				return
			}
			r.hear("guest", "control", message)
		}
	}()
	of := func(wanted byte) [][]byte {
		return slices.DeleteFunc(r.hasHeard("guest", "control"), func(b []byte) bool { return kind(b) != wanted })
	}
	states := func(all [][]byte) (bodies []string) {
		for _, message := range all {
			if kind(message) == 9 {
				bodies = append(bodies, string(message))
			}
		}
		slices.Sort(bodies)
		return bodies
	}
	eventually(t, "a snapshot, heartbeats and the state of the host's listeners", func() bool {
		return len(of(2)) == 1 && len(of(6)) == 2 && slices.Equal(states(of(9)), states(r.said.of("guest", "control")))
	})
	for i, pong := range of(6) {
		if got := binary.BigEndian.Uint64(pong[5:]); got != uint64(i+1) {
			t.Errorf("heartbeat %d is answered by %d", i+1, got)
		}
	}
	if first := r.hasHeard("guest", "control")[0]; kind(first) != 1 {
		t.Errorf("the first message is of kind %d", kind(first))
	}
	for _, message := range r.hasHeard("guest", "control") {
		if kind(message)&0x80 != 0 {
			t.Errorf("a message of kind %#x ends a link to the host of then", kind(message))
		}
	}
	now := listed(of(2)[0])
	for _, head := range listed(r.said.of("guest", "control")[1]) {
		port := number(head, len(head)-2, 2)
		if (port == wireTCP || port == wireUDP) && !slices.ContainsFunc(now, func(h []byte) bool { return bytes.Equal(h, head) }) {
			t.Errorf("%x is not announced any more, but %x", head, now)
		}
	}

	said := r.said.of("host", "tcp")
	c := r.open(g.socket, "tcp")
	_, _ = c.Write(said[2])
	r.tellEnds("host", said[1][2:10], said[1][2:10])
	_ = c.(*net.UnixConn).CloseWrite()
	if got := must(io.ReadAll(c))(t); !bytes.Equal(got, r.said.of("guest", "tcp")[1]) {
		t.Errorf("a client gets %q", got)
	}

	c = r.open(g.socket, "udp")
	_, _ = c.Write(r.said.of("host", "udp")[2])
	if got := must(readDatagram(c))(t); !bytes.Equal(got, r.said.of("guest", "udp")[1]) {
		t.Errorf("a datagram is answered by %x", got)
	}

	served := make(chan struct{})
	go func() {
		defer close(served)
		stream, err := session.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		said, then := r.said.of("host", "reverse"), r.said.of("guest", "reverse")
		if head, err := read(stream, 16, 0, 0); err != nil || !bytes.Equal(head, then[0]) {
			t.Errorf("a stream of the guest begins with %x, %v", head, err)
		}
		_, _ = stream.Write(said[0])
		if question, err := read(stream, len(wireQuestion), 0, 0); err != nil || !bytes.Equal(question, then[1]) {
			t.Errorf("a client in the guest says %q, %v", question, err)
		}
		_, _ = stream.Write(said[1])
		r.tellEnds("host", then[0][:8], then[0][:8])
		_ = stream.Close()
	}()
	g.do(t, func() error { ask(t, wireReverse); return nil })
	<-served
	eventually(t, "the ends of both connections", func() bool { return len(r.hasHeard("guest", "ends")) >= 2 })
	sameEnds(t, r, "guest")
}
