package main

import (
	"fmt"
	"io"
	"net"
	"time"
)

// server is the program in the guest that opens a port and closes it again. It answers
// each request with what it got.
type server struct{ listener io.Closer }

func (s *server) open(proto string) (at time.Time, err error) {
	address := fmt.Sprintf("0.0.0.0:%d", port)
	if proto == "UDP" {
		c, err := net.ListenPacket("udp4", address)
		at = time.Now()
		if err == nil {
			s.listener = c
			go echo(c)
		}
		return at, err
	}
	l, err := net.Listen("tcp4", address)
	at = time.Now()
	if err == nil {
		s.listener = l
		go answerAll(l)
	}
	return at, err
}

func (s *server) close() (at time.Time, err error) {
	err = s.listener.Close()
	return time.Now(), err
}

func echo(c net.PacketConn) {
	b := make([]byte, 16)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(b[:n], from)
	}
}

func answerAll(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			var b [1]byte
			if _, err := c.Read(b[:]); err == nil {
				_, _ = c.Write(b[:])
			}
		}()
	}
}

// inNamespace is a server in a network namespace.
type inNamespace struct {
	*namespace
	server server
}

func (n *inNamespace) open(proto string) (at time.Time, err error) {
	err = n.do(func() (err error) {
		at, err = n.server.open(proto)
		return err
	})
	return at, err
}

func (n *inNamespace) close() (at time.Time, err error) { return n.server.close() }
