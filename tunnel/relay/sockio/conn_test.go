package sockio_test

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"golang.org/x/net/nettest"

	"github.com/rum-vm/rum-agent/tunnel/relay/sockio"
)

// conn is a connection that is read and written by its socket.
type conn struct {
	net.Conn
	socket sockio.Conn
}

func (c conn) Read(b []byte) (int, error)  { return c.socket.Read(b) }
func (c conn) Write(b []byte) (int, error) { return c.socket.Write(b) }

// connect makes both ends of a connection.
func connect(network string) (client, server net.Conn, err error) {
	l, err := nettest.NewLocalListener(network)
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if client, err = net.Dial(network, l.Addr().String()); err != nil {
		return nil, nil, err
	}
	if server, err = l.Accept(); err != nil {
		_ = client.Close()
		return nil, nil, err
	}
	return client, server, nil
}

func bySocket(c net.Conn) net.Conn {
	return conn{c, sockio.New(c.(interface {
		io.ReadWriter
		syscall.Conn
	}))}
}

func TestItIsTheConnectionWhoseSocketItIs(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				if c1, c2, err = connect(network); err != nil {
					return nil, nil, nil, err
				}
				return bySocket(c1), bySocket(c2), func() { _ = c1.Close(); _ = c2.Close() }, nil
			})
		})
	}
}

func TestAResetIsReadAsOne(t *testing.T) {
	c, peer, err := connect("tcp")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = peer.(*net.TCPConn).SetLinger(0)
	_ = peer.Close()
	if n, err := bySocket(c).Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%d, %v", n, err)
	}
}
