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

func dialItself(network, host string) (net.Conn, error) {
	free, err := net.ListenPacket("udp", host+":0")
	if err != nil {
		return nil, err
	}
	addr := free.LocalAddr().(*net.UDPAddr)
	_ = free.Close()
	if network == "udp" {
		return net.DialUDP(network, addr, addr)
	}
	itself := &net.TCPAddr{IP: addr.IP, Port: addr.Port}
	return net.DialTCP(network, itself, itself)
}
