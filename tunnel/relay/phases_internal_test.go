package relay

import (
	"io"
	"testing"

	"golang.org/x/sys/unix"
)

// toldStream is a stream of which the test plays the peer's part.
type toldStream struct {
	Socket
	told    bool  // how it ended
	cut     error // and that it was no end
	all     bool  // has arrived
	aborted bool
}

func (s *toldStream) ProveEnd(error) error {
	if !s.told {
		return ErrEndUnknown
	}
	return s.cut
}
func (s *toldStream) Arrived() (bool, error) { return s.all, s.cut }
func (s *toldStream) WasAborted() bool       { return s.aborted }
func (s *toldStream) Failure() error         { return nil }
func (s *toldStream) SourceEnded()           {}
func (s *toldStream) Reusable() bool         { return false }
func (s *toldStream) OnDescriptor() bool     { return true }
func (s *toldStream) WhenDead(func())        {}
func (s *toldStream) Progress() uint64       { return 0 }

// phases is a pair whose loop does not run: the test tells it what the kernel would.
type phases struct {
	t      *testing.T
	pair   *Pair
	stream *toldStream
	peers  [2]int // of the program's socket and of the stream's
}

// socketPair returns a connection and the number of its other end.
func socketPair(t *testing.T) (Socket, int) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return newSocket(fds[0]), fds[1]
}

type keepsPair struct {
	Socket
	pair *Pair
}

func (k *keepsPair) Detach(p *Pair) (*Descriptor, error) {
	k.pair = p
	return k.Socket.Detach(p)
}

func newPhases(t *testing.T) *phases { return newPhasesOver(t, socketPair) }

// newPhasesOver is newPhases with a stream over a connection of some kind.
func newPhasesOver(t *testing.T, pairOf func(t *testing.T) (Socket, int)) *phases {
	l := &Loop{epoll: -1, running: true, buf: make([]byte, loopBuffer)}
	x := &phases{t: t, stream: &toldStream{}}
	program := &keepsPair{}
	program.Socket, x.peers[0] = socketPair(t)
	x.stream.Socket, x.peers[1] = pairOf(t)
	l.Join(program, x.stream, nil, new(Counters), func(error) {})
	x.pair = program.pair
	t.Cleanup(func() {
		x.pair.abort(io.ErrClosedPipe)
		for _, fd := range append(x.peers[:], l.epoll, l.wake) {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
	})
	return x
}

const program, stream = 0, 1

func (x *phases) sees(side int, events uint32) { x.pair.handle(x.pair.loop, side, events) }

// ends has a side's peer end its direction.
func (x *phases) ends(side int) {
	_ = unix.Shutdown(x.peers[side], unix.SHUT_WR)
	x.sees(side, unix.EPOLLIN)
}

// resets has a side's peer go away with something unread, which reads as ECONNRESET.
func (x *phases) resets(side int) {
	if _, err := unix.Write(x.peers[1-side], []byte("unread")); err != nil {
		x.t.Fatal(err)
	}
	x.sees(1-side, unix.EPOLLIN)
	x.closes(side)
	x.sees(side, unix.EPOLLIN)
}

func (x *phases) closes(side int) {
	_ = unix.Close(x.peers[side])
	x.peers[side] = -1
}

// fills has the stream bring more than the program takes.
func (x *phases) fills() {
	for h := &x.pair.halves[stream]; !h.blocked(); x.sees(stream, unix.EPOLLIN) {
		if _, err := unix.Write(x.peers[stream], make([]byte, loopBuffer)); err != nil {
			x.t.Fatal(err)
		}
	}
}

// reads has the program take it all.
func (x *phases) reads() {
	for h := &x.pair.halves[stream]; h.blocked(); x.sees(program, unix.EPOLLOUT) {
		for n := 1; n > 0; n, _ = unix.Read(x.peers[program], make([]byte, loopBuffer)) {
		}
	}
}

// tells has the stream's peer tell something.
func (x *phases) tells(what toldStream) {
	s := x.stream
	s.told, s.cut, s.all, s.aborted = what.told, what.cut, what.all, what.aborted
	x.pair.Notify()
}

// The table of the package's text, a row for each cause. The phases are those of what
// comes from the program, and of what comes from the stream.
func TestEachPhaseBecomesWhatTheTableSays(t *testing.T) {
	type both [2]phase
	end, all, cut, aborted := toldStream{told: true}, toldStream{told: true, all: true},
		toldStream{told: true, cut: io.ErrUnexpectedEOF}, toldStream{aborted: true}
	for name, row := range map[string]struct {
		do   func(x *phases)
		want both
	}{
		"open": {func(*phases) {}, both{phaseOpen, phaseOpen}},
		"open, a program's EOF": {func(x *phases) { x.ends(program) },
			both{phaseTold, phaseOpen}},
		"open, a program's error": {func(x *phases) { x.resets(program) },
			both{phaseCut, phaseStopped}},
		"open, a stream's EOF": {func(x *phases) { x.ends(stream) },
			both{phaseOpen, phaseDraining}},
		"open, a stream's error": {func(x *phases) { x.resets(stream) },
			both{phaseOpen, phaseDraining}},
		"open, all has arrived": {func(x *phases) { x.tells(all) },
			both{phaseOpen, phaseTold}},
		"open, all has arrived and is held": {func(x *phases) { x.fills(); x.tells(all) },
			both{phaseOpen, phaseDraining}},
		"open, less was sent": {func(x *phases) { x.tells(cut) },
			both{phaseStopped, phaseCut}},
		"open, the stream is reset": {func(x *phases) { x.tells(aborted) },
			both{phaseStopped, phaseOpen}},
		"draining, the end is told": {func(x *phases) { x.ends(stream); x.tells(end) },
			both{phaseOpen, phaseTold}},
		"draining, what is held has gone": {func(x *phases) { x.fills(); x.tells(all); x.reads() },
			both{phaseOpen, phaseTold}},
		"draining, it was no end": {func(x *phases) { x.ends(stream); x.tells(cut) },
			both{phaseStopped, phaseCut}},
		"draining, the program is gone": {func(x *phases) { x.ends(stream); x.closes(program); x.sees(program, unix.EPOLLHUP|unix.EPOLLERR) },
			both{phaseTold, phaseStopped}},
		"told, the destination is reset": {func(x *phases) { x.ends(program); x.tells(aborted) },
			both{phaseTold, phaseOpen}},
		"cut, with what is held": {func(x *phases) { x.fills(); x.tells(cut) },
			both{phaseStopped, phaseCut}},
		"cut, the program is gone": {func(x *phases) { x.fills(); x.tells(cut); x.closes(program); x.sees(program, unix.EPOLLHUP) },
			both{phaseStopped, phaseStopped}},
		"stopped, and nothing more": {func(x *phases) { x.tells(aborted); x.ends(program) },
			both{phaseStopped, phaseOpen}},
		"told both ways": {func(x *phases) { x.ends(program); x.ends(stream); x.tells(end) },
			both{phaseTold, phaseTold}},
	} {
		t.Run(name, func(t *testing.T) {
			x := newPhases(t)
			row.do(x)
			x.pair.mu.Lock()
			defer x.pair.mu.Unlock()
			if got := (both{x.pair.halves[0].phase, x.pair.halves[1].phase}); got != row.want {
				t.Errorf("the phases are %v, want %v", got, row.want)
			}
		})
	}
}
