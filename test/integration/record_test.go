package integration

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// released is what the agents of the last release said to each other, unit by unit: frames of the handshake, messages,
// records, datagrams. With -record they say it anew: both agents are built from the tag's commit into DIR, with its name
// as their version (-ldflags "-X main.version=NAME"), and then
//
//	go test ./test/integration -run RecordTheReleasedWire -record DIR
//
// What is taken apart here is what docs/protocol.md says; the packages that the agents use are not asked.
const released = "testdata/released.wire"

// releasedVersion is what they call themselves.
const releasedVersion = "596765e"

var record = flag.String("record", "", "write "+released+" anew with the agents in this `DIR`")

// The session: a client of a service of the guest, datagrams to another, a client in the guest of a service of the host.
const (
	wireTCP, wireUDP, wireReverse = 8080, 5353, 9000

	wireRules = "[[ports]]\nguest = 9000\nreverse = true\n\n[[forward]]\nguest = \"5353\"\nproto = \"udp\"\n"

	wireQuestion = "a question of a client\n"
	wireAnswer   = "the answer of the service\n"
)

var wireKey = keyfile.Key(bytes.Repeat([]byte{0x5a}, 32))

// units are what one side has said on one channel, in order.
type units map[string][][]byte

// of returns what a side said on a channel: "link", "control", "ends", "tcp", "udp", "reverse".
func (u units) of(side, channel string) [][]byte { return u[side+" "+channel] }

func (u units) add(side, channel string, unit []byte) {
	u[side+" "+channel] = append(u[side+" "+channel], unit)
}

func readReleased(t *testing.T) units {
	t.Helper()
	text, err := os.ReadFile(released)
	if err != nil {
		t.Fatal(err)
	}
	all := make(units)
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		unit, err := hex.DecodeString(words[len(words)-1])
		if err != nil || len(words) != 3 {
			t.Fatalf("%s: %q: %v", released, line, err)
		}
		all.add(words[0], words[1], unit)
	}
	return all
}

// tap is a connection between the agents, and what went over it.
type tap struct {
	mu   sync.Mutex
	said map[string][]byte // by side
}

func (c *tap) copy(to, from net.Conn, side string) {
	for b := make([]byte, 1<<16); ; {
		n, err := from.Read(b)
		c.mu.Lock()
		c.said[side] = append(c.said[side], b[:n]...)
		c.mu.Unlock()
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			_ = to.(*net.UnixConn).CloseWrite()
			return
		}
	}
}

// tapped returns a socket that leads to that of a guest agent, and what goes through it.
func tapped(t *testing.T, guest string) (socket string, taken func() units) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "tap.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var mu sync.Mutex
	var taps []*tap
	go func() {
		for {
			host, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("unix", guest)
			if err != nil {
				_ = host.Close()
				continue
			}
			c := &tap{said: make(map[string][]byte)}
			mu.Lock()
			taps = append(taps, c)
			mu.Unlock()
			go c.copy(to, host, "host")
			go c.copy(host, to, "guest")
		}
	}()
	return socket, func() units {
		mu.Lock()
		defer mu.Unlock()
		all := make(units)
		for _, c := range taps {
			c.mu.Lock()
			takeApart(all, c.said)
			c.mu.Unlock()
		}
		return all
	}
}

// takeApart adds what both sides said on a connection.
func takeApart(all units, said map[string][]byte) {
	host, guest := said["host"], said["guest"]
	frame := func(b *[]byte) []byte { return take(b, 11+number(*b, 9, 2)) }
	first := frame(&host)
	if first == nil {
		return
	}
	switch first[8] {
	case 1:
		all.add("host", "link", first)
		all.add("host", "link", frame(&host))
		all.add("guest", "link", frame(&guest))
		all.add("guest", "link", frame(&guest))
		for side, rest := range map[string][]byte{"host": host, "guest": guest} {
			control, reverse := ofStream(rest, 1), ofStream(rest, 2)
			for unit := []byte{}; unit != nil; {
				if unit = take(&control, 4+number(control, 0, 4)); unit != nil {
					all.add(side, "control", unit)
				}
			}
			if head := map[string]int{"host": 3 + number(reverse, 1, 2), "guest": 16}[side]; len(reverse) >= head {
				all.add(side, "reverse", take(&reverse, head))
				all.add(side, "reverse", reverse)
			}
		}
	case 6:
		all.add("host", "ends", first)
		for side, rest := range map[string][]byte{"host": host, "guest": guest} {
			for unit := take(&rest, 17); unit != nil; unit = take(&rest, 17) {
				all.add(side, "ends", unit)
			}
		}
	case 5:
		request := take(&host, 2+number(host, 0, 2))
		if request == nil {
			return // dialled in advance
		}
		answer := take(&guest, 3+number(guest, 1, 2))
		channel := map[byte]string{0: "tcp", 1: "udp"}[request[10]&0x3f]
		all.add("host", channel, first)
		all.add("host", channel, request)
		all.add("guest", channel, answer)
		if channel == "tcp" {
			all.add("host", channel, host)
			all.add("guest", channel, guest)
			return
		}
		for side, rest := range map[string][]byte{"host": host, "guest": guest} {
			for unit := []byte{}; unit != nil; {
				if unit = take(&rest, 7+number(rest, 5, 2)); unit != nil {
					all.add(side, channel, unit)
				}
			}
		}
	}
}

// take takes n bytes off b; nil if there are not as many.
func take(b *[]byte, n int) []byte {
	if len(*b) < n {
		return nil
	}
	first := (*b)[:n:n]
	*b = (*b)[n:]
	return first
}

// number is the one of so many bytes at an offset; 0 if it is not there.
func number(b []byte, at, size int) int {
	if len(b) < at+size {
		return 0
	}
	var padded [8]byte
	copy(padded[8-size:], b[at:at+size])
	return int(binary.BigEndian.Uint64(padded[:]))
}

// ofStream is what frames of yamux carry on a stream.
func ofStream(b []byte, stream int) (data []byte) {
	for {
		head := take(&b, 12)
		if head == nil {
			return data
		}
		if head[1] == 0 {
			body := take(&b, number(head, 8, 4))
			if number(head, 4, 4) == stream {
				data = append(data, body...)
			}
		}
	}
}

func TestRecordTheReleasedWire(t *testing.T) {
	if *record == "" {
		return
	}
	defer func(was string) { bin = was }(bin)
	bin = *record
	file, err := filepath.Abs(released)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("/") // which is recorded
	g := &guestVM{namespace: newNamespace(t), name: "dev", socket: filepath.Join(t.TempDir(), "dev.sock"), key: writeKey(t)}
	serveWire(t, g.namespace)
	g.startAgent(t)
	eventually(t, "the guest agent", func() bool { _, err := os.Stat(g.socket); return err == nil })
	socket, taken := tapped(t, g.socket)
	g.socket = socket
	answerReverse(t)
	h := startHostRules(t, g, wireRules)
	converse(t, h)
	g.do(t, func() error { ask(t, wireReverse); return nil })
	var all units
	eventually(t, "two heartbeats and the ends of both connections", func() bool {
		all = taken()
		pongs := slices.DeleteFunc(slices.Clone(all.of("guest", "control")), func(b []byte) bool { return b[4] != 6 })
		return len(pongs) >= 2 && len(all.of("host", "ends")) > 2 && len(all.of("guest", "ends")) > 1
	})
	var text strings.Builder
	fmt.Fprintf(&text, "# What the agents of the last release said to each other, for %s.\n# Who says it, on which channel, and the bytes.\n", "record_test.go")
	for _, channel := range []string{"link", "control", "ends", "tcp", "udp", "reverse"} {
		for _, side := range []string{"host", "guest"} {
			for _, unit := range all.of(side, channel) {
				if len(unit) > 0 {
					fmt.Fprintf(&text, "%s %s %x\n", side, channel, unit)
				}
			}
		}
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func writeKey(t *testing.T) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "key")
	if err := keyfile.WritePrivate(file, wireKey.Encode()); err != nil {
		t.Fatal(err)
	}
	return file
}

// serveWire has the services of the session in the guest.
func serveWire(t *testing.T, ns *namespace) {
	t.Helper()
	reply(ns.listen(t, fmt.Sprintf("127.0.0.1:%d", wireTCP)))
	echoUDP(ns.listenUDP(t, fmt.Sprintf("127.0.0.1:%d", wireUDP)))
}

// reply answers who has asked the question of the session and ended its direction.
func reply(l net.Listener) {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if all, err := io.ReadAll(c); err == nil && string(all) == wireQuestion {
					_, _ = io.WriteString(c, wireAnswer)
				}
			}()
		}
	}()
}

func answerReverse(t *testing.T) {
	t.Helper()
	reply(listenHost(t, fmt.Sprintf("127.0.0.1:%d", wireReverse)))
}

// ask asks the question and wants the answer.
func ask(t *testing.T, port int) {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	_, _ = io.WriteString(c, wireQuestion)
	_ = c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(bufio.NewReader(c)); err != nil || string(got) != wireAnswer {
		t.Errorf("port %d answers %q, %v", port, got, err)
	}
}

// converse is the host's part of the session: its client asks, its datagram comes back.
func converse(t *testing.T, h *hostAgent) {
	t.Helper()
	h.awaitForward(t, "dev", wireTCP, "active", active)
	h.udpForward(t, "dev", wireUDP, active)
	h.forwardOf(t, "dev", fmt.Sprintf("127.0.0.1:%d", wireReverse), func(f status.Forward) bool { return f.Reverse && active(f) })
	ask(t, wireTCP)
	c, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", wireUDP))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := make([]byte, 100)
	eventually(t, "a datagram to come back", func() bool {
		_, _ = io.WriteString(c, wireQuestion)
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		n, _ := c.Read(got)
		return string(got[:n]) == wireQuestion
	})
}
