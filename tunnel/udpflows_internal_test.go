package tunnel

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// TestAFlowEndsWhileItsServiceAnswers: the socket closes only when what it has received
// was handed over, and who hands it over must not wait for who closes it.
func TestAFlowEndsWhileItsServiceAnswers(t *testing.T) {
	service, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	go func() {
		for b := make([]byte, 100); ; {
			n, from, err := service.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			for range 20 {
				_, _ = service.WriteToUDPAddrPort(b[:n], from)
			}
		}
	}()
	to := service.LocalAddr().(*net.UDPAddr).AddrPort()
	flows := NewUDPFlows(4, func(to netip.AddrPort) (*UDPSocket, error) { return dialUDP(to, nil) }, DatagramHandler{
		Reply: func(uint32, []byte) bool { return true }, Trouble: func(uint32, uint32, string) {},
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range uint32(2000) {
			if err := flows.Send(i%8, to, []byte("hello")); err != nil {
				t.Error(err)
			}
			if i%3 == 0 {
				flows.End(i % 8)
			}
		}
		flows.Close()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("flows that are answered do not end")
	}
}
