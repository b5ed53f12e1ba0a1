package relay

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// follower moves a loop to the processor of the program that it exchanges
// messages with, where that is one at a time. To wake a program on another
// processor takes an interrupt there, 20 to 30 us in a virtual machine, twice for
// each round trip; on its own processor it runs as soon as the loop yields. The
// other agent looks by itself, wherever it is.
type follower struct {
	serial   int32 // of the pair that the last messages belonged to
	messages int   // how many of them went to its program, since the last look
	away     int   // how many times in a row the program was found elsewhere
}

const (
	// followEvery is after how many messages to look where the program is, and
	// followAway how many times in a row it has to be elsewhere. A program that
	// the kernel moves about is not followed everywhere.
	followEvery = 8
	followAway  = 2
	// followRest is how many messages a move has to have paid for before the next.
	followRest = 64
)

// follow is called with a socket whose other end is a program on this machine, when
// a message has been written to it.
func (l *loop) follow(p *Pair, fd int) {
	f := &l.follower
	if p.serial != f.serial {
		*f = follower{serial: p.serial}
	}
	if f.messages++; f.messages < followEvery || !l.waiter.brief() {
		return
	}
	f.messages = 0
	cpu, here := peerProcessor(fd), processor()
	if cpu < 0 || cpu == here {
		f.away = 0
		return
	}
	if f.away++; f.away == followAway {
		moveTo(cpu)
		f.away, f.messages = 0, -followRest
	}
}

// peerProcessor is where what came last on a connection was sent, if that was
// on this machine: it is taken in there and then. It is negative if unknown.
func peerProcessor(fd int) int {
	cpu, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_INCOMING_CPU)
	if err != nil {
		return -1
	}
	return cpu
}

// processor is where we are.
func processor() int {
	var cpu uint32
	_, _, _ = unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0)
	return int(cpu)
}

// moveTo moves the calling thread, and leaves it to the kernel where it goes from
// there.
func moveTo(cpu int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var allowed, there unix.CPUSet
	if unix.SchedGetaffinity(0, &allowed) != nil || !allowed.IsSet(cpu) {
		return
	}
	there.Set(cpu)
	_ = unix.SchedSetaffinity(0, &there)
	_ = unix.SchedSetaffinity(0, &allowed)
}
