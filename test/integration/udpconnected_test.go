package integration

import (
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A server like nc -u -l answers its first client from the only socket it has.
func TestAUDPServerThatConnectsToItsClientStaysForwarded(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	server := g.listenUDP(t, "0.0.0.0:7000")
	h.udpForward(t, "dev", 7000, active)
	go func() {
		buf := make([]byte, 1<<16)
		n, client, err := server.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		raw, err := server.SyscallConn()
		if err != nil {
			return
		}
		_ = raw.Control(func(fd uintptr) {
			err = unix.Connect(int(fd), &unix.SockaddrInet4{Addr: client.Addr().Unmap().As4(), Port: int(client.Port())})
		})
		for err == nil {
			if _, err = server.WriteToUDPAddrPort(buf[:n], client); err == nil {
				n, _, err = server.ReadFromUDPAddrPort(buf)
			}
		}
	}()
	client := dialUDP(t, "127.0.0.1:7000")
	// Several scans of the guest agent fit into the exchange.
	for i := range 10 {
		if err := asks(client, fmt.Appendf(nil, "%d", i), 3*time.Second); err != nil {
			t.Fatalf("question %d: %v", i, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	h.udpForward(t, "dev", 7000, active)
	_ = server.Close()
	eventually(t, "the forward to go", func() bool {
		c, err := net.ListenPacket("udp4", "127.0.0.1:7000")
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}
