package udp

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// dial is for services whose answers come from where they were asked.
func dial(to netip.AddrPort) (*Socket, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil, err
	}
	return NewSocket(c)
}

func send(u *Flows, id uint32, to netip.AddrPort, payload string) error {
	out := NewBurst()
	defer out.Flush()
	_, err := u.Add(id, to, []byte(payload), out)
	return err
}

func isRefused(u *Flows, id uint32, to netip.AddrPort) bool {
	_, _, refused, _ := u.find(id, to)
	return refused
}

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
	flows := NewFlows(4, dial, Handler{
		Reply: func(uint32, []byte, int, *Burst) int { return 0 }, Trouble: func(uint32, uint32, string) {},
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range uint32(2000) {
			if err := send(flows, i%8, to, "hello"); err != nil {
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

func TestADatagramForNobodyIsOfNoUseUntilSomebodyAnswers(t *testing.T) {
	service, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := service.LocalAddr().(*net.UDPAddr).AddrPort()
	_ = service.Close()
	answers, trouble := make(chan struct{}, 8), make(chan string, 8)
	flows := NewFlows(8, dial, Handler{
		Reply:   func(uint32, []byte, int, *Burst) int { answers <- struct{}{}; return 0 },
		Trouble: func(_, _ uint32, reason string) { trouble <- reason },
	})
	defer flows.Close()
	if err := send(flows, 1, addr, "x"); err != nil {
		t.Fatal(err)
	}
	soon(t, trouble, "trouble is told")
	if !isRefused(flows, 1, addr) {
		t.Error("a flow to nobody passes for one that is served")
	}
	if service, err = net.ListenPacket("udp", addr.String()); err != nil {
		t.Fatalf("another program has taken the port: %v", err)
	}
	defer service.Close()
	_ = service.SetDeadline(time.Now().Add(patience))
	if err := send(flows, 1, addr, "x"); err != nil {
		t.Fatal(err)
	}
	_, from, err := service.ReadFrom(make([]byte, 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := service.WriteTo([]byte("y"), from); err != nil {
		t.Fatal(err)
	}
	soon(t, answers, "the answer has come")
	if isRefused(flows, 1, addr) {
		t.Error("a flow that is answered passes for one that is not")
	}
}

const patience = 30 * time.Second

func soon[T any](t *testing.T, c <-chan T, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("waited %v in vain until %s", patience, what)
	}
}
