package relay

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel/relay/epollwait"
)

// Loop serves many descriptors with one goroutine that waits for all of them.
// Against two goroutines a connection it takes three system calls for a small
// message instead of five, no detour through the scheduler where one message follows
// the other, and next to no memory while a connection waits. It knows only descriptors; what bytes and ends mean is
// up to the pair they belong to.
type Loop struct {
	epoll int    // -1 before the first use
	wake  int    // eventfd, for when nothing is left to serve
	buf   []byte // for small reads; used by the loop's thread only
	pipe  *pipe  // empty, for splice(2); used by the loop's thread only

	waiter epollwait.Waiter // likewise

	mu      sync.Mutex
	served  []served // by slot
	free    []int32  // slots
	count   int
	serial  int32
	running bool
}

// loopBuffer is how much is read at once before a direction is taken for
// a bulk transfer and spliced.
const loopBuffer = 64 << 10

var loops struct {
	once sync.Once
	all  []*Loop
	next atomic.Uint32
}

// served is what a loop serves.
type served interface {
	// handle is called with what the kernel says of a descriptor; side is
	// what it was watched with, 0 or 1.
	handle(l *Loop, side int, events uint32)
	registered() *registration
}

// registration is what a loop knows a served thing by; it is embedded in that. An event
// carries the serial number of the registration that it was watched for. One whose
// registration has been removed is dropped.
type registration struct {
	loop         *Loop // nil before it is added
	slot, serial int32
}

func (r *registration) registered() *registration { return r }

// pickLoop spreads the work over one loop for every two processors.
func pickLoop() *Loop {
	all := allLoops()
	return all[int(loops.next.Add(1))%len(all)]
}

func allLoops() []*Loop {
	loops.once.Do(func() {
		for range Loops() {
			loops.all = append(loops.all, &Loop{epoll: -1})
		}
	})
	return loops.all
}

// Loops is how many loops there may be at a time. One that sleeps in epoll_wait(2) keeps its
// place in Go's scheduler for some milliseconds, and goroutines must not wait for that, so
// a program does best with GOMAXPROCS so much greater than it would be for its goroutines
// alone.
func Loops() (n int) { return max(1, runtime.NumCPU()/2) }

// add takes in something, with nothing watched yet.
func (l *Loop) add(s served) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoll < 0 {
		if err := l.create(); err != nil {
			return err
		}
	}
	p := s.registered()
	if n := len(l.free); n > 0 {
		p.slot = l.free[n-1]
		l.free = l.free[:n-1]
		l.served[p.slot] = s
	} else {
		p.slot = int32(len(l.served))
		l.served = append(l.served, s)
	}
	l.serial++
	p.loop, p.serial = l, l.serial
	l.count++
	if !l.running {
		l.running = true
		go l.run()
	}
	return nil
}

// addFD takes in something with one descriptor, and has events waited for on it.
func (l *Loop) addFD(s served, fd int, events uint32) error {
	if err := l.add(s); err != nil {
		return err
	}
	err := l.watch(s.registered(), fd, 0, unix.EPOLL_CTL_ADD, events)
	if err != nil {
		l.remove(s.registered())
		s.registered().loop = nil
	}
	return err
}

// create needs l.mu.
func (l *Loop) create() error {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: wakeSlot})
		if err != nil {
			_ = unix.Close(wake)
		}
	}
	if err != nil {
		_ = unix.Close(epoll)
		return fmt.Errorf("eventfd: %w", err)
	}
	l.epoll, l.wake = epoll, wake
	return nil
}

// wakeSlot is that of no connection.
const wakeSlot = -1

// wakeUp adds one to an eventfd.
var wakeUp = binary.NativeEndian.AppendUint64(nil, 1)

// remove forgets something; the kernel forgets its descriptors when they are
// closed.
func (l *Loop) remove(p *registration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.served[p.slot] = nil
	l.free = append(l.free, p.slot)
	if l.count--; l.count == 0 {
		_, _ = unix.Write(l.wake, wakeUp) // its count does not overflow in an age
	}
}

// watch sets what is waited for on a descriptor.
func (l *Loop) watch(p *registration, fd, side, op int, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: p.slot<<1 | int32(side), Pad: p.serial}
	if err := unix.EpollCtl(l.epoll, op, fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

func (l *Loop) run() {
	l.buf = make([]byte, loopBuffer)
	events := make([]unix.EpollEvent, 128)
	for {
		n, err := l.waiter.Wait(l.epoll, events)
		if err != nil && err != unix.EINTR {
			panic(fmt.Sprintf("epoll_wait: %v", err)) // no error but of our own making is left
		}
		for _, ev := range events[:max(n, 0)] {
			if s := l.of(ev); s != nil {
				s.handle(l, int(ev.Fd&1), ev.Events)
			}
		}
		if l.waiter.Quiet() && l.retire() {
			return
		}
	}
}

// of is what an event is about, or nil if that has ended meanwhile.
func (l *Loop) of(ev unix.EpollEvent) served {
	if ev.Fd == wakeSlot {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.served[ev.Fd>>1]; s != nil && s.registered().serial == ev.Pad {
		return s
	}
	return nil
}

// retire ends a loop without work.
func (l *Loop) retire() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count > 0 {
		return false
	}
	l.running = false
	l.waiter.Stop()
	l.buf = nil
	if l.pipe != nil {
		pipes.Put(l.pipe)
		l.pipe = nil
	}
	return true
}

// Scratch is a buffer of 64 KiB for who is called by the loop, until that returns.
func (l *Loop) Scratch() []byte { return l.buf }
