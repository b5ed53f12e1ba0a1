package tunnel_test

import (
	"errors"
	"net"
	"testing"

	"github.com/rum-vm/rum-agent/tunnel/dial"
	"golang.org/x/sys/unix"
)

// As the kernel does by chance where nobody listens on a port that clients get.
func TestASocketThatIsConnectedToItselfIsARefusal(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		for _, host := range []string{"127.0.0.1", "[::1]"} {
			c, err := dialItself(network, host)
			if err != nil {
				t.Fatal(err)
			}
			at := c.LocalAddr().String()
			if err := dial.NotToItself(c); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%s %s: %v", network, at, err)
			}
			// Nothing of it is left in the server's way.
			if network == "tcp" {
				l, err := net.Listen(network, at)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
			}
		}
	}
	other, err := net.Dial("tcp", service(t, echo).Addrs[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := dial.NotToItself(other); err != nil {
		t.Error(err)
	}
}

// dialItself takes a port from the kernel, which for TCP another test's connection may
// have by the time it is bound again.
func dialItself(network, host string) (net.Conn, error) {
	if network == "udp" {
		free, err := net.ListenPacket("udp", host+":0")
		if err != nil {
			return nil, err
		}
		addr := free.LocalAddr().(*net.UDPAddr)
		_ = free.Close()
		return net.DialUDP(network, addr, addr)
	}
	for {
		free, err := net.Listen("tcp", host+":0")
		if err != nil {
			return nil, err
		}
		addr := free.Addr().(*net.TCPAddr)
		_ = free.Close()
		c, err := net.DialTCP(network, addr, addr)
		if !errors.Is(err, unix.EADDRINUSE) {
			return c, err
		}
	}
}
