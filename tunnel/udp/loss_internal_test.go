package udp

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sender sends bursts to a socket: what is written at once leaves as datagrams of a length.
func sender(t *testing.T, to *Socket, length int) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to.LocalAddr()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, length) })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestABurstThatIsDroppedWholeCountsAsItsDatagrams(t *testing.T) {
	s, err := NewSocket(listen(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const length, each, bursts = 1000, 20, 2000 // several times what the buffer takes
	c := sender(t, s, length)
	for range bursts {
		if _, err := c.Write(make([]byte, each*length)); err != nil {
			t.Fatal(err)
		}
	}
	got, lost, done := 0, 0, make(chan error, 1)
	go func() {
		done <- s.Receive(Receiver{
			Handle: func(b []byte, size int, _ Peer, _ *Burst) int {
				got += int(Count(b, size))
				return 0
			},
			Trouble: func(n uint32, _ error) { lost += int(n) },
			Done: func(int, time.Duration) bool {
				if got+lost < bursts*each && got > 0 {
					_, _ = c.Write(make([]byte, each*length)) // the kernel tells of losses with what comes next
				}
				return lost > 0
			},
		})
	}()
	soon(t, done, "a loss is told")
	if lost%each != 0 {
		t.Errorf("%d are lost, which is no number of whole bursts of %d", lost, each)
	}
	if all := got + lost; all < bursts*each {
		t.Errorf("%d came and %d were lost, of %d at least", got, lost, bursts*each)
	}
}

// A socket may be kept while agents take turns, and an older one would take a burst for one datagram.
func TestASocketThatIsHandedOnGivesDatagramsOneByOne(t *testing.T) {
	conn := listen(t)
	file, err := conn.File() // as the service manager has it
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s, err := NewSocket(conn)
	if err != nil {
		t.Fatal(err)
	}
	c := sender(t, s, 1000)
	_ = s.Close()
	kept, err := net.FilePacketConn(file)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	_ = kept.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(make([]byte, 3000)); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if n, _, err := kept.ReadFrom(make([]byte, 4000)); n != 1000 || err != nil {
			t.Fatalf("datagram %d has %d bytes: %v", i, n, err)
		}
	}
}
