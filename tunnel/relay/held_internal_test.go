package relay

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tcpDescriptors is socketPair over TCP, where a write meets a reset as ECONNRESET, as over
// vsock.
func tcpDescriptors(t *testing.T) (near Socket, far int) {
	one, other := tcpPair(t)
	fd, err := takeDescriptor(one)
	if err != nil {
		t.Fatal(err)
	}
	if far, err = takeDescriptor(other); err != nil {
		t.Fatal(err)
	}
	return newSocket(fd), far
}

// A guest agent may be gone when all of a stream has come from it. What the client has not
// taken yet is still its own, whatever a write to the guest meets.
func TestWhatIsHeldOfACompleteStreamSurvivesAResetOfItsConnection(t *testing.T) {
	x := newPhasesOver(t, tcpDescriptors)
	x.fills()
	x.tells(toldStream{told: true, all: true})
	if err := unix.SetsockoptLinger(x.peers[stream], unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		t.Fatal(err)
	}
	x.closes(stream)
	for end := time.Now().Add(30 * time.Second); hangup(x.pair.sides[stream].fd)&unix.POLLERR == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no reset has come")
		}
	}
	if _, err := unix.Write(x.peers[program], []byte("more")); err != nil {
		t.Fatal(err)
	}
	x.sees(program, unix.EPOLLIN)
	x.pair.Notify()

	x.pair.mu.Lock()
	out, in := x.pair.halves[program].phase, &x.pair.halves[stream]
	if out != phaseStopped || in.phase != phaseDraining || !in.blocked() {
		t.Errorf("the phases are %v and %v, what was held is there: %v; want stopped, draining, and all that was held", out, in.phase, in.blocked())
	}
	x.pair.mu.Unlock()
	x.reads()
	if in.phase != phaseTold {
		t.Errorf("with nothing held the phase is %v, want told", in.phase)
	}
}
