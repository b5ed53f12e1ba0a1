package forward_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

// TestABurstThatAClientSendsAsOneComesBackInOrder: QUIC and WireGuard send so (UDP_SEGMENT in udp(7)). What is
// answered one by one arrives so, too.
func TestABurstThatAClientSendsAsOneComesBackInOrder(t *testing.T) {
	const bursts, most = 50, 40
	for _, way := range []string{"the link", "the bridge"} {
		t.Run("over "+way, func(t *testing.T) {
			vm := newTable(t, forward.Config{}).Add("dev")
			if way == "the link" {
				vm.SetLink(udpLink(t))
			} else {
				vm.SetBridge(netip.MustParseAddr(guestIP), nil)
			}
			port, _ := udpEcho(t, addr(guestIP, ownnet.FreePort(t)))
			vm.Announce(udpListeners(port, guestIP))
			c := dialUDP(t, addr("127.0.0.1", port))
			askUntil(t, c, "hello")
			_ = c.SetReadBuffer(4 << 20)
			_ = c.SetDeadline(time.Now().Add(patience))
			buf := make([]byte, 1<<16)
			for n := range bursts {
				size, last := 100+20*n, 1+n%7
				burst := bytes.Repeat([]byte{byte(n)}, size*(n%most)+last)
				for i := range n % most {
					copy(burst[i*size:], fmt.Sprintf("%d of burst %d.", i, n))
				}
				sendAsOne(t, c, burst, size)
				for i := range n%most + 1 {
					want := burst[i*size : min((i+1)*size, len(burst))]
					if got, err := c.Read(buf); err != nil || !bytes.Equal(buf[:got], want) {
						t.Fatalf("datagram %d of burst %d: %d bytes came, want %d: %v", i, n, got, len(want), err)
					}
				}
			}
			if f := one(t, vm); f.LastError != "" {
				t.Error(f.LastError)
			}
		})
	}
}

// sendAsOne has the kernel divide a burst into datagrams of one size.
func sendAsOne(t *testing.T, c *net.UDPConn, burst []byte, size int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size) })
	if err == nil {
		_, err = c.Write(burst)
	}
	if err != nil {
		t.Fatal(err)
	}
}
