package udp

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// outcome is what an owner was told.
type outcome struct {
	datagrams, bytes int
	errs             []error
}

func (o *outcome) Sent(datagrams, bytes int, err error) (useless int) {
	o.datagrams += datagrams
	o.bytes += bytes
	if err != nil {
		o.errs = append(o.errs, err)
		return datagrams
	}
	return 0
}

func listen(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadBuffer(4 << 20)
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

func addrPort(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// sizes of datagrams as they come: bursts of one length, shorter ones, empty ones, the longest.
var mixed = slices.Concat(
	slices.Repeat([]int{1200}, 100), []int{700, 1200, 1200, 0, 0, 5, 1300, wire.MaxDatagram, 1, 1},
	slices.Repeat([]int{200}, 700), []int{wire.MaxDatagram, 9000, 9000, 9000, 9000, 9000, 9000, 9000, 9000, 100},
)

// made are datagrams of some lengths, which are all different.
func made(sizes []int) (all [][]byte) {
	for i, size := range sizes {
		all = append(all, bytes.Repeat([]byte{byte(i), byte(i >> 8), byte(i * 7)}, size/3+1)[:size])
	}
	return all
}

func TestABurstArrivesAsTheDatagramsItWasMadeOf(t *testing.T) {
	for name, whole := range map[string]bool{"divided by the kernel": false, "one by one": true} {
		t.Run(name, func(t *testing.T) {
			service := listen(t)
			from := listen(t)
			s, err := NewSocket(from)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if !whole && s.whole.Load() {
				t.Fatal("the kernel does not know UDP_SEGMENT, which came with Linux 4.18")
			}
			s.whole.Store(whole)
			all := made(mixed)
			got := make(chan [][]byte, 1)
			go func() {
				var came [][]byte
				for buf := make([]byte, 1<<16); len(came) < len(all); {
					n, err := service.Read(buf)
					if err != nil {
						break
					}
					came = append(came, bytes.Clone(buf[:n]))
				}
				got <- came
			}()
			out, of, bytes := NewBurst(), &outcome{}, 0
			for i, b := range all {
				out.Add(s, Peer{Addr: addrPort(service)}, b, of)
				bytes += len(b)
				if i%300 == 0 {
					out.Flush()
				}
			}
			out.Flush()
			equal(t, <-got, all)
			if of.datagrams != len(all) || of.bytes != bytes || of.errs != nil {
				t.Errorf("%d datagrams and %d bytes are said to be sent, of %d and %d: %v", of.datagrams, of.bytes, len(all), bytes, of.errs)
			}
			if s.whole.Load() != whole {
				t.Error("the kernel did not divide it")
			}
		})
	}
}

func equal(t *testing.T, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d datagrams came of %d", len(got), len(want))
	}
	for i, b := range want {
		if !bytes.Equal(got[i], b) {
			t.Fatalf("datagram %d has %d bytes, want %d, or others", i, len(got[i]), len(b))
		}
	}
}

func TestABurstThatTheKernelDoesNotDivideGoesOutOneByOne(t *testing.T) {
	service, from := listen(t), listen(t)
	// It divides only what it computes checksums for.
	raw, err := from.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1) })
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSocket(from)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	all := made([]int{500, 500, 500, 20})
	out, of := NewBurst(), &outcome{}
	for _, b := range all {
		out.Add(s, Peer{Addr: addrPort(service)}, b, of)
	}
	if useless := out.Flush(); useless != 0 || of.datagrams != len(all) || of.errs != nil {
		t.Errorf("%d of %d were sent: %v", of.datagrams, len(all), of.errs)
	}
	var got [][]byte
	for buf := make([]byte, 1000); len(got) < len(all); {
		n, err := service.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, bytes.Clone(buf[:n]))
	}
	equal(t, got, all)
	if !s.whole.Load() {
		t.Error("the kernel is asked again each time")
	}
}

func TestWhatCannotBeSentIsToldToItsOwnerAlone(t *testing.T) {
	service, from := listen(t), listen(t)
	s, err := NewSocket(from)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out, well, ill := NewBurst(), &outcome{}, &outcome{}
	out.Add(s, Peer{Addr: addrPort(service)}, []byte("one"), well)
	out.Add(s, Peer{Addr: netip.MustParseAddrPort("[2001:db8::1]:7")}, []byte("two"), ill) // of another family
	out.Add(s, Peer{Addr: addrPort(service)}, []byte("three"), well)
	if useless := out.Flush(); useless != 1 {
		t.Errorf("%d were of no use, want 1", useless)
	}
	if well.datagrams != 2 || well.errs != nil || ill.datagrams != 1 || len(ill.errs) != 1 {
		t.Errorf("told were %+v and %+v", *well, *ill)
	}
	buf := make([]byte, 10)
	for _, want := range []string{"one", "three"} {
		if n, err := service.Read(buf); err != nil || string(buf[:n]) != want {
			t.Errorf("%q, %v; want %q", buf[:n], err, want)
		}
	}
}

// A client may send a burst by one call, which the kernel divides, or keeps whole for who can take it.
func TestWhatWasSentAsOneIsReceivedAsTheDatagramsItConsistsOf(t *testing.T) {
	conn := listen(t)
	s, err := NewSocket(conn)
	if err != nil {
		t.Fatal(err)
	}
	sender, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(s.LocalAddr()))
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	all := made(slices.Concat(slices.Repeat([]int{1000}, 40), []int{123}))
	raw, err := sender.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, 1000) })
	if err != nil {
		t.Fatal(err)
	}
	var got [][]byte
	calls, done := 0, make(chan error, 1)
	go func() {
		done <- s.Receive(Receiver{
			Handle: func(b []byte, size int, _ Peer, _ *Burst) int {
				calls++
				for one := range Split(b, size) {
					got = append(got, bytes.Clone(one))
				}
				return 0
			},
			Trouble: func(lost uint32, err error) { t.Errorf("lost %d: %v", lost, err) },
			Done:    func(int, time.Duration) bool { return len(got) > len(all) },
		})
	}()
	if _, err := sender.Write(bytes.Join(all, nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := sender.Write(nil); err != nil { // the empty one ends it
		t.Fatal(err)
	}
	soon(t, done, "all has come")
	equal(t, got, append(all, nil))
	if calls != 2 {
		t.Errorf("it came in %d parts, want the burst and the empty datagram", calls)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A send is told what the network said of an earlier datagram, and it is to be known all the same.
func TestARefusalThatASendWasToldOfIsTrouble(t *testing.T) {
	gone := listen(t)
	to := addrPort(gone)
	_ = gone.Close()
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	same := -1 // the same socket
	_ = raw.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVERR, 1); err == nil {
			same, err = unix.Dup(int(fd))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(same)
	s, err := NewSocket(conn)
	if err != nil {
		t.Fatal(err)
	}
	out := NewBurst()
	out.Add(s, Peer{}, []byte("x"), &outcome{})
	out.Flush()
	if errno, err := unix.GetsockoptInt(same, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || errno != int(unix.ECONNREFUSED) {
		t.Fatalf("error %d is pending: %v", errno, err) // and now it is none any more
	}
	trouble, done := make(chan error, 8), make(chan error, 1)
	go func() {
		done <- s.Receive(Receiver{
			Handle:  func([]byte, int, Peer, *Burst) int { return 0 },
			Trouble: func(_ uint32, err error) { trouble <- err },
			Done:    func(int, time.Duration) bool { return false },
		})
	}()
	select {
	case err := <-trouble:
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("nobody was told")
	}
	_ = s.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestADatagramTakesNoMemoryOfItsOwn(t *testing.T) {
	service, from := listen(t), listen(t)
	s, err := NewSocket(from)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	q, payload, of := newQueue(), make([]byte, 200), &outcome{}
	out, to := NewBurst(), Peer{Addr: addrPort(service), Local: netip.MustParseAddr("127.0.0.1")}
	var batch []byte
	if n := testing.AllocsPerRun(100, func() {
		for flow := range uint32(50) {
			q.add(wire.DatagramFrame{Kind: wire.DatagramToGuest, Flow: flow % 3, Target: to.Addr, Payload: payload})
		}
		batch = q.take(batch)
		for b := batch; len(b) > 0; {
			f, n, err := wire.SplitDatagram(b)
			if err != nil {
				t.Fatal(err)
			}
			for one := range Split(f.Payload, 100) {
				out.Add(s, to, one, of)
			}
			b = b[n:]
		}
		out.Flush()
	}); n > 0 {
		t.Errorf("50 datagrams took %v allocations", n)
	}
	if of.errs != nil {
		t.Error(of.errs[0])
	}
}
