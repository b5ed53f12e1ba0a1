package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"time"
)

// What is done to a guest agent without a key: by a user of the host, who can reach it as
// the host agent does, and by a program in the guest.

func guestModes() []mode {
	const ping = 5
	garbage := []byte("no protocol of ours\n")
	unknown := message(99, bytes.Repeat([]byte{1}, 20))
	reverse := message(8, append(append([]byte{0, 1}, append(number(1), 0, 4, 127, 0, 0, 1)...), 0x1f, 0x90))
	end := append(append(number(1<<62), 2), number(0)...)
	datagram := func(flow byte, port int) []byte {
		return []byte{1, 0, 0, flow, 1, 0, 17, 4, 127, 0, 0, 1, byte(port >> 8), byte(port), 0, 10, 1, 1, 1, 1, 1, 1, 1, 1}
	}
	return []mode{
		{name: "user: strangers", user: func(dial dialer) {
			var all []net.Conn
			for {
				if c, err := dial(); err == nil {
					all = append(all, c)
				}
				if len(all) > 300 {
					_ = all[0].Close()
					all = all[1:]
				}
			}
		}, sink: garbage},
		{name: "user: garbage", user: func(dial dialer) {
			for {
				if c, err := dial(); err == nil {
					_, _ = c.Write(garbage)
					_, _ = io.Copy(io.Discard, c)
					_ = c.Close()
				}
			}
		}, sink: garbage},
		{name: "user: handshakes", user: func(dial dialer) {
			hello := frame(frameHello, append([]byte{0, 2, 0, 2, 0}, make([]byte, 40)...))
			for {
				if c, err := dial(); err == nil {
					go func() { _, _ = io.Copy(io.Discard, c) }()
					spew(hello)(c)
					_ = c.Close()
				}
			}
		}, sink: garbage},
		{name: "user: links", user: onLinks(func(s *hostLink) { _ = s.conn.Close() }), sink: garbage},
		{name: "user: pings", user: onLinks(func(s *hostLink) {
			spew(mux(muxPing, muxSYN, 0, 1, nil))(s.conn)
		}), sink: garbage},
		{name: "user: heartbeats", user: onLinks(func(s *hostLink) {
			flood(message(ping, number(1)))(s.session)
		}), sink: garbage},
		{name: "user: unknown", user: onLinks(func(s *hostLink) { flood(unknown)(s.session) }), sink: unknown},
		{name: "user: orders", user: onLinks(func(s *hostLink) { flood(reverse)(s.session) }), sink: reverse},
		{name: "user: streams", user: onLinks(func(s *hostLink) {
			for id := uint32(3); ; id += 2 {
				b := mux(muxData, muxSYN, id, uint32(len(request(uint64(id), 0, evilTCP))), request(uint64(id), 0, evilTCP))
				if _, err := s.conn.Write(b); err != nil {
					return
				}
			}
		}), sink: garbage},
		{name: "user: connections", user: onLinks(func(s *hostLink) {
			// To a port that listens, which is answered and not read.
			for id := uint64(1); id < 3000; id++ {
				c, err := s.dial()
				if err != nil {
					return
				}
				if _, err := c.Write(append(frame(frameRaw, s.token), request(id, 0, goodPort)...)); err != nil {
					return
				}
				go func() { _, _ = c.Write(bytes.Repeat(chunk, 100)) }()
			}
			s.wait()
		}), sink: chunk},
		{name: "user: refused", user: onLinks(func(s *hostLink) {
			// To a port where nothing listens, without waiting for the answer.
			for id := uint64(1); ; id++ {
				c, err := s.dial()
				if err != nil {
					return
				}
				if _, err := c.Write(append(frame(frameRaw, s.token), request(id, 0, 9)...)); err != nil {
					_ = c.Close()
					continue
				}
				go func() { _, _ = io.Copy(io.Discard, c); _ = c.Close() }()
			}
		}), sink: chunk},
		{name: "user: thin data", user: onLinks(func(s *hostLink) {
			r := request(1, 0, goodPort)
			_, _ = s.conn.Write(mux(muxData, muxSYN, 3, uint32(len(r)), r))
			s.thin(3)
		}), sink: chunk},
		{name: "user: ends", user: onLinks(func(s *hostLink) { spew(end)(s.ends) }), sink: end},
		{name: "user: datagrams", user: onLinks(func(s *hostLink) {
			c, err := s.dial()
			if err != nil {
				return
			}
			var b []byte
			for flow := range 256 {
				b = append(b, datagram(byte(flow), evilUDP)...)
			}
			_, _ = c.Write(append(frame(frameRaw, s.token), request(1, 1, 0)...))
			go func() { _, _ = io.Copy(io.Discard, c) }()
			spew(b)(c)
		}), sink: chunk},
		{name: "user: flows", user: onLinks(func(s *hostLink) {
			// Each begins, which takes a socket, and ends.
			c, err := s.dial()
			if err != nil {
				return
			}
			var b []byte
			for flow := range 200 {
				b = append(append(b, datagram(byte(flow), silentUDP)...), 3, 0, 0, byte(flow), 1, 0, 0)
			}
			_, _ = c.Write(append(frame(frameRaw, s.token), request(1, 1, 0)...))
			go func() { _, _ = io.Copy(io.Discard, c) }()
			spew(b)(c)
		}), sink: chunk},
		{name: "program: ports", local: func() {
			for port := 20_000; ; port = 20_000 + (port-20_000+1)%500 {
				if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
					time.Sleep(time.Millisecond)
					_ = l.Close()
				}
			}
		}},
		{name: "program: sockets", local: func() {
			var all []io.Closer
			for port := 20_000; port < 24_500; port++ {
				if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
					all = append(all, l)
				}
				if p, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
					all = append(all, p)
				}
			}
			for {
				_ = all[0].Close()
				all[0], _ = net.Listen("tcp", "127.0.0.1:20000")
				time.Sleep(50 * time.Millisecond)
			}
		}},
		{name: "program: connections", local: func() {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return
			}
			var all []net.Conn
			for {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				d, _ := l.Accept()
				if all = append(all, c, d); len(all) > 8000 {
					_, _ = all[0].Close(), all[1].Close()
					all = all[2:]
				}
				time.Sleep(time.Millisecond)
			}
		}},
	}
}

type dialer func() (net.Conn, error)

// hostLink is the host's end of a link.
type hostLink struct {
	*session
	token []byte
	ends  net.Conn
	dial  dialer
}

// onLinks makes one link after the other and does f on each.
func onLinks(f func(*hostLink)) func(dialer) {
	return func(dial dialer) {
		for {
			l, err := dialLink(dial)
			if err != nil {
				time.Sleep(time.Millisecond)
				continue
			}
			f(l)
			_, _ = l.conn.Close(), l.ends.Close()
		}
	}
}

// dialLink shakes hands as a host agent without a key does, and opens the control stream.
func dialLink(dial dialer) (l *hostLink, err error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = c.Close()
		}
	}()
	hello := append([]byte{0, 2, 0, 2, 0}, make([]byte, 40)...)
	_, _ = rand.Read(hello[5:37])
	if _, err := c.Write(frame(frameHello, hello)); err != nil {
		return nil, err
	}
	const signed, proof = 87, 32
	_, reply, err := readFrame(c)
	if err != nil {
		return nil, err
	}
	if len(reply) < signed+proof {
		return nil, fmt.Errorf("reply of %d bytes", len(reply))
	}
	mac := hmac.New(sha256.New, nil)
	fmt.Fprintf(mac, "rum-agent stream token\n")
	mac.Write(hello)
	mac.Write(append(bytes.Clone(reply[:signed]), reply[signed+proof:]...))
	verdict := append(bytes.Clone(reply[signed-32:signed]), 0, 0, 0)
	if _, err := c.Write(frame(frameProof, append(verdict, make([]byte, proof)...))); err != nil {
		return nil, err
	}
	_, ready, err := readFrame(c)
	if err != nil {
		return nil, err
	}
	if len(ready) <= 32 || ready[32] != 0 {
		return nil, fmt.Errorf("refused: %q", ready)
	}
	l = &hostLink{session: newSession(c), token: mac.Sum(nil)[:16], dial: dial}
	if _, err := c.Write(mux(muxWindow, muxSYN, 1, 0, nil)); err != nil {
		return nil, err
	}
	l.begin()
	go l.read(c)
	if l.ends, err = dial(); err != nil {
		return nil, err
	}
	if _, err := l.ends.Write(frame(frameEnds, l.token)); err != nil {
		return nil, err
	}
	return l, l.control(helloMessage())
}

// request is what opens a stream: to a port of 127.0.0.1, or for datagrams.
func request(id uint64, network byte, port int) []byte {
	b := append(number(id), network)
	if network == 0 {
		b = append(b, 1, 4, 127, 0, 0, 1, byte(port>>8), byte(port))
	} else {
		b = append(b, 0)
	}
	return append([]byte{0, byte(len(b))}, b...)
}
