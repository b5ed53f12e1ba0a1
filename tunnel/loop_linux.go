package tunnel

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A loop moves the bytes of many pairs of descriptors with one thread that
// waits for all of them. Against two goroutines a connection it takes three
// system calls for a small message instead of five, no detour through the
// scheduler, and next to no memory while a connection waits. It knows only
// descriptors; what bytes and ends mean is up to the pair.
type loop struct {
	epoll int
	buf   []byte // for small reads; used by the loop's thread only
	pipe  *pipe  // empty, for splice(2); used by the loop's thread only

	mu      sync.Mutex
	pairs   []*pair // by slot
	free    []int32 // slots
	count   int
	serial  int32
	running bool
}

const (
	// loopBuffer is how much is read at once before a direction is taken for
	// a bulk transfer and spliced.
	loopBuffer = 64 << 10
	// loopLinger is how long in milliseconds a loop waits for work before it
	// looks whether there is any left, and ends if not.
	loopLinger = 200
)

var loops struct {
	once sync.Once
	all  []*loop
	next atomic.Uint32
}

// pickLoop spreads pairs over as many loops as there are processors.
func pickLoop() *loop {
	loops.once.Do(func() {
		for range runtime.GOMAXPROCS(0) {
			loops.all = append(loops.all, &loop{epoll: -1})
		}
	})
	return loops.all[int(loops.next.Add(1))%len(loops.all)]
}

// add takes in a pair and begins to wait for both its descriptors.
func (l *loop) add(p *pair) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoll < 0 {
		fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return fmt.Errorf("epoll_create1: %w", err)
		}
		l.epoll = fd
	}
	if n := len(l.free); n > 0 {
		p.slot = l.free[n-1]
		l.free = l.free[:n-1]
		l.pairs[p.slot] = p
	} else {
		p.slot = int32(len(l.pairs))
		l.pairs = append(l.pairs, p)
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

// remove forgets a pair; the kernel forgets its descriptors when they are closed.
func (l *loop) remove(p *pair) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pairs[p.slot] = nil
	l.free = append(l.free, p.slot)
	l.count--
}

// watch sets what is waited for on one side of a pair.
func (l *loop) watch(p *pair, side int, op int, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: p.slot<<1 | int32(side), Pad: p.serial}
	if err := unix.EpollCtl(l.epoll, op, p.sides[side].fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

func (l *loop) run() {
	l.buf = make([]byte, loopBuffer)
	events := make([]unix.EpollEvent, 128)
	for {
		n, err := unix.EpollWait(l.epoll, events, loopLinger)
		if err != nil && err != unix.EINTR {
			panic(fmt.Sprintf("epoll_wait: %v", err)) // no error but of our own making is left
		}
		for _, ev := range events[:max(n, 0)] {
			if p := l.pairOf(ev); p != nil {
				p.handle(int(ev.Fd&1), ev.Events)
			}
		}
		if n == 0 && l.retire() {
			return
		}
	}
}

// pairOf is the pair an event is about, or nil if that has ended meanwhile.
func (l *loop) pairOf(ev unix.EpollEvent) *pair {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.pairs[ev.Fd>>1]; p != nil && p.serial == ev.Pad {
		return p
	}
	return nil
}

// retire ends a loop without work.
func (l *loop) retire() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count > 0 {
		return false
	}
	l.running = false
	l.buf = nil
	if l.pipe != nil {
		pipes.Put(l.pipe)
		l.pipe = nil
	}
	return true
}
