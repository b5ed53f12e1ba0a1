package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Ports of the hostile guest.
const (
	evilTCP = 6000
	evilUDP = 6001
)

// evilBridge is where the hostile guest is reached without its agent.
const evilBridge = "127.0.0.9"

// mode is one thing that no agent does.
type mode struct {
	name string
	// endpoint is the host's, of a VM that is reached at a path.
	endpoint func(path string) string
	// session is done on the session after the guest has announced its ports, until
	// the host ends it; nil for nothing.
	session func(s *session)
	// ends is done on the connection for the ends of streams, raw on one for a
	// stream; nil for nothing.
	ends, raw func(c net.Conn)
	// line is done in place of everything, on the bare connection.
	line func(c net.Conn)
	// clients is how many clients connect to its port and read nothing, and sends that
	// they send as much as is taken.
	clients int
	sends   bool
	// polite is to answer heartbeats, or the link is ended before long.
	polite bool
	// asks has a client send a datagram now and then.
	asks bool
	// rules are the host's, of rum.toml; "" for none.
	rules string
	// user is what a user of the host does to a guest agent, local what a program in the
	// guest does; nil for what a guest does to a host agent.
	user  func(dialer)
	local func()
	// sink is the flood into a sink that is not ours. A program's is itself, in another
	// network.
	sink []byte
}

// victim is the agent that is measured.
func (m mode) victim() string {
	if m.user != nil || m.local != nil {
		return "guest agent"
	}
	return "host agent"
}

func many(path string) string { return "unix:" + path }
func one(path string) string  { return "serial:" + path }

// flood repeats messages, many at a time, on the control stream.
func flood(unit []byte) func(*session) {
	batch := bytes.Repeat(unit, max(1, 30_000/len(unit)))
	return func(s *session) {
		for s.control(batch) == nil {
		}
	}
}

// spew repeats bytes on a connection.
func spew(unit []byte) func(net.Conn) {
	batch := bytes.Repeat(unit, max(1, 60_000/len(unit)))
	return func(c net.Conn) {
		for {
			if _, err := c.Write(batch); err != nil {
				return
			}
		}
	}
}

var chunk = make([]byte, 60_000)

func modes() []mode {
	ping := mux(muxPing, muxSYN, 0, 1, nil)
	pong := message(messagePong, number(1))
	end := append(append(number(1<<40), 2), number(0)...)
	scan := append(message(messageScanError, text("one thing")), message(messageScanError, text("another"))...)
	unknown := message(99, bytes.Repeat([]byte{1}, 20))
	datagram := append([]byte{2, 0xff, 0, 0, 1, 0, 10}, bytes.Repeat([]byte{2}, 10)...)
	unread := append([]byte{2, 0, 0, 0, 1, 0, 10}, bytes.Repeat([]byte{2}, 10)...)
	state := message(messageReverseState, append(append(number(1), 4), text("no")...))
	page := message(11, append(number(1), text("https://example.com/")...)) // without a key nobody can prove it
	all := []mode{
		{name: "pings", endpoint: many, session: func(s *session) { spew(ping)(s.conn) }, sink: ping},
		{name: "windows", endpoint: many, session: func(s *session) { spew(mux(muxWindow, 0, 1, 0, nil))(s.conn) }, sink: ping},
		{name: "streams", endpoint: many, session: fillStreams, sink: chunk},
		{name: "clients", endpoint: one, clients: 200, sink: chunk},
		{name: "many clients", endpoint: one, clients: 1000, sink: chunk},
		{name: "many senders", endpoint: one, clients: 1000, sends: true, sink: chunk},
		{name: "drip", endpoint: many, session: drip(1), sink: chunk},
		{name: "thin drip", endpoint: one, session: drip(64), sink: chunk},
		{name: "large messages", endpoint: many, session: flood(message(99, make([]byte, 1<<20-1))), sink: chunk},
		{name: "short links", endpoint: many, session: func(s *session) {
			time.AfterFunc(300*time.Millisecond, func() { _ = s.conn.Close() })
			flap(s)
		}, ends: spew(end), sink: chunk},
		{name: "pongs", endpoint: many, session: flood(pong), sink: pong},
		{name: "hellos", endpoint: many, session: flood(helloMessage()), sink: pong},
		{name: "unknown", endpoint: many, session: flood(unknown), sink: unknown},
		{name: "scan errors", endpoint: many, session: flood(scan), sink: scan},
		{name: "states", endpoint: many, session: flood(state), sink: state},
		{name: "pages", endpoint: many, session: flood(page), sink: page},
		{name: "flapping", endpoint: many, session: flap, sink: chunk},
		{name: "ends", endpoint: many, ends: spew(end), sink: end},
		{name: "datagrams", endpoint: many, asks: true, raw: func(c net.Conn) {
			_, _ = c.Write([]byte{0, 0, 0})
			spew(datagram)(c)
		}, sink: datagram},
		{name: "unread datagrams", endpoint: many, asks: true, raw: func(c net.Conn) {
			_, _ = c.Write([]byte{0, 0, 0})
			spew(unread)(c)
		}, sink: unread},
		{name: "unread over the bridge", endpoint: func(path string) string { return "unix:" + path + ",bridge=" + evilBridge },
			asks: true, session: floodClient, sink: unread},
		{name: "garbage", endpoint: one, line: spew([]byte("\xffno protocol of ours\n")), sink: chunk},
		{name: "replies", endpoint: one, line: spew(frame(frameReply, nil)), sink: chunk},
		{name: "verdicts", endpoint: one, line: spew(frame(frameReady, make([]byte, 70))), sink: chunk},
		{name: "half a handshake", endpoint: many, line: func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, sink: ping},
		{name: "reconnects", endpoint: many, session: func(s *session) { _ = s.conn.Close() }, sink: ping},
		{name: "stderr", endpoint: func(string) string { return "exec:yes " + strings.Repeat("x", 500) + " >&2" }, sink: chunk},
	}
	return slices.Concat(all, changeModes(), reverseModes(), guestModes())
}

func helloMessage() []byte {
	return message(messageHello, append(append(text("v9"), text("evil")...), text("boot")...))
}

// announce says what an honest guest says first: hello, and two ports that listen.
func announce(s *session) error {
	tcp, udp := listeners(0, evilTCP, 1), listeners(1, evilUDP, 1)
	both := append([]byte{0, 2}, tcp[2:]...)
	both = append(both, udp[2:]...)
	return s.control(append(helloMessage(), message(messageSnapshot, append(number(1), both...))...))
}

// drip sends messages of which nobody knows the kind, so many bytes at a time.
func drip(size int) func(*session) {
	unit := message(99, make([]byte, 1<<20-1))
	return func(s *session) {
		for s.drip(unit, size) == nil {
		}
	}
}

// fillStreams opens streams that nobody asked for and fills them.
func fillStreams(s *session) {
	for id := uint32(2); ; id += 2 {
		if _, err := s.conn.Write(mux(muxWindow, muxSYN, id, 0, nil)); err != nil {
			return
		}
		for range 4 {
			if _, err := s.conn.Write(mux(muxData, 0, id, uint32(len(chunk)), chunk)); err != nil {
				return
			}
		}
	}
}

// floodClient ends the link, and answers a client of the bridge with datagrams for as
// long as it can.
func floodClient(s *session) {
	_ = s.conn.Close()
	c, err := net.ListenPacket("udp", fmt.Sprintf("%s:%d", evilBridge, evilUDP))
	if err != nil {
		return // it is done already
	}
	_, client, err := c.ReadFrom(make([]byte, 16))
	for err == nil || errors.Is(err, syscall.ECONNREFUSED) {
		_, err = c.WriteTo([]byte("ten bytes."), client)
	}
}

// fill answers a stream of the host's and sends as much as its window takes at once.
func (s *session) fill(id uint32) {
	b := mux(muxData, muxACK, id, 3, []byte{0, 0, 0})
	for range 17 {
		b = append(b, mux(muxData, 0, id, uint32(len(chunk)), chunk)...)
	}
	s.mu.Lock() // frames whole
	defer s.mu.Unlock()
	_, _ = s.conn.Write(b)
}

// wait waits until the session has ended.
func (s *session) wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.ended {
		s.more.Wait()
	}
}

// flap announces 500 ports, and that they are gone, as fast as it can.
func flap(s *session) {
	list, none := listeners(0, 20_000, 500), []byte{0, 0}
	for generation := uint64(1); ; generation += 2 {
		added := append(append(append(number(generation), number(generation+1)...), none...), list...)
		removed := append(append(append(number(generation+1), number(generation+2)...), list...), none...)
		if s.control(append(message(messageDelta, added), message(messageDelta, removed)...)) != nil {
			return
		}
	}
}

// serve is the hostile guest at a unix socket.
func serve(m mode, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if m.line != nil {
				m.line(c)
				return
			}
			kind, body, err := readFrame(c)
			for err == nil && kind != frameHello && kind != frameRaw && kind != frameEnds {
				kind, body, err = readFrame(c)
			}
			if err != nil {
				return
			}
			switch kind {
			case frameHello:
				if shake(c, c, body) != nil {
					return
				}
				s := newSession(c)
				s.polite = m.polite
				if m.clients > 0 {
					s.opened = s.fill
				}
				go s.read(c)
				if announce(s) != nil {
					return
				}
				if m.session != nil {
					time.Sleep(50 * time.Millisecond) // the host opens its ports
					m.session(s)
				}
				s.wait()
			case frameEnds:
				if m.ends != nil {
					m.ends(c)
				}
				_, _ = io.Copy(io.Discard, c)
			case frameRaw:
				if m.raw == nil {
					_, _ = io.Copy(io.Discard, c)
					return
				}
				_, _ = c.Read(make([]byte, 256)) // what is to be opened
				go m.raw(c)
				_, _ = io.Copy(io.Discard, c)
			}
		}()
	}
}

func find(name string) (mode, error) {
	for _, m := range modes() {
		if m.name == name {
			return m, nil
		}
	}
	return mode{}, fmt.Errorf("no mode %q", name)
}
