package udpdrops_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/rum-vm/rum-agent/portwatch/udpdrops"
)

// TestTheKernelTellsWhatASocketDoesNotRead: for every kind of socket that a datagram
// can be for.
func TestTheKernelTellsWhatASocketDoesNotRead(t *testing.T) {
	for _, c := range []struct{ name, network, bind, host string }{
		{"one address", "udp4", "127.0.0.1:0", "127.0.0.1"},
		{"all of IPv4", "udp4", "0.0.0.0:0", "127.0.0.1"},
		{"both families by IPv4", "udp", "[::]:0", "127.0.0.1"},
		{"both families by IPv6", "udp", "[::]:0", "::1"},
		{"IPv6", "udp6", "[::1]:0", "::1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.ListenPacket(c.network, c.bind)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			_ = l.(*net.UDPConn).SetReadBuffer(1) // the least the kernel gives
			to := netip.AddrPortFrom(netip.MustParseAddr(c.host), l.LocalAddr().(*net.UDPAddr).AddrPort().Port())
			s, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			from := s.LocalAddr().(*net.UDPAddr).AddrPort()
			before, err := udpdrops.Of(from, to)
			if err != nil {
				t.Fatal(err)
			}
			const sent = 200
			for range sent {
				if _, err := s.Write([]byte("unread")); err != nil {
					t.Fatal(err)
				}
			}
			after, err := udpdrops.Of(from, to)
			if err != nil {
				t.Fatal(err)
			}
			if lost := after - before; lost < sent/2 || lost > sent {
				t.Errorf("of %d datagrams that nobody read, %d were dropped", sent, lost)
			}
			l.Close()
			if _, err := udpdrops.Of(from, to); !errors.Is(err, udpdrops.ErrNoSocket) {
				t.Errorf("after it was closed: %v", err)
			}
		})
	}
}

func BenchmarkOf(b *testing.B) {
	l, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	to := l.LocalAddr().(*net.UDPAddr).AddrPort()
	for b.Loop() {
		if _, err := udpdrops.Of(to, to); err != nil {
			b.Fatal(err)
		}
	}
}
