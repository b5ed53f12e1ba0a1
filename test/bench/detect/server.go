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
	l, at, err := listenTCP()
	if err == nil {
		s.listener = l
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

// inNamespace is a server in a network namespace.
type inNamespace struct {
	*namespace
	server server
}

func (n *inNamespace) open(proto string) (func() (time.Time, error), error) {
	var at time.Time
	err := n.do(func() (err error) {
		at, err = n.server.open(proto)
		return err
	})
	return func() (time.Time, error) { return at, nil }, err
}

func (n *inNamespace) close() (at time.Time, err error) { return n.server.close() }
