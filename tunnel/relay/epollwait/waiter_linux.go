package epollwait

import (
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel/clock"
)

// Waiter waits for the events of one epoll descriptor, for one goroutine. To wake a sleeping
// thread on another processor takes the waker longer than to move 64 KiB, in a virtual
// machine at least, so in a transfer everyone would be busy waking the next: it stays awake.
type Waiter struct {
	parking parking
	bulk    bool          // much has been moved since the last wait
	near    int           // how many events in a row came within awakeNear
	brisk   int           // and within briskWait; one that did not, and none, takes half away
	yielded time.Duration // how long others had the processor, of late
	slices  time.Duration // and how much of that they took as whole slices
	crowded time.Duration // until when there is no staying awake for that
	now     time.Duration // the clock, when last looked at
	turn    time.Duration // since when the goroutine has its place in Go's scheduler
}

const (
	// awakeFor is how long to look for the next event before going to sleep, if
	// events came within awakeNear before. One stream moved 1.4 times as much
	// with them as without; 50 us for both gained half of that, 400 us no more.
	awakeFor  = 200 * time.Microsecond
	awakeNear = 100 * time.Microsecond
	// awakeMany is how many of them it takes where little is moved: more than a
	// request and its answer make, so that each of those does not cost awakeFor.
	awakeMany = 16
	// briskWait is how long to sleep before parking. A thread that comes back from the
	// kernel within 10 ms still has its place in Go's scheduler (retake in
	// runtime/proc.go), and briskMany events in a row, more than a request and
	// its answer make, are worth keeping it.
	briskWait = 8 * time.Millisecond
	briskMany = 16
	// turnMost is less than the 10 ms (forcePreemptNS there) after which the runtime has a
	// goroutine yield to others that has not.
	turnMost = 4 * time.Millisecond
	// slice is less than the kernel's scheduler gives who computes at a time
	// (base_slice_ns in kernel/sched/fair.c, or a tick), and more than the
	// programs at the ends of a connection mostly take. When they make up four
	// fifths of crowdWindow, there is no staying awake for crowdedFor. Beside two
	// programs that compute they are 97 % of it; of 700 windows in transfers of
	// four streams at once none had 80 %.
	slice       = time.Millisecond
	crowdWindow = 20 * time.Millisecond
	crowdedFor  = 2 * time.Second
)

// Wait is epoll_wait(2) without a time limit, but that it may come back with nothing.
func (w *Waiter) Wait(epoll int, events []unix.EpollEvent) (n int, err error) {
	w.now = clock.Now()
	began := w.now
	if n, err = w.awake(epoll, events); n == 0 {
		n, err = w.sleep(epoll, events)
	}
	if n > 0 && w.now-began < briskWait {
		w.brisk = min(w.brisk+1, briskMany)
	} else {
		w.brisk /= 2
	}
	if w.now-w.turn >= turnMost {
		runtime.Gosched()
		w.turn = w.now
	}
	return n, err
}

// Bulk notes that much has been moved since the last wait.
func (w *Waiter) Bulk() { w.bulk = true }

// Quiet tells whether the next wait will be parked, if it comes to waiting.
func (w *Waiter) Quiet() bool { return w.brisk < briskMany }

// Stop lets go of what it waits with, until the next wait.
func (w *Waiter) Stop() { w.parking.close() }

// awake looks for events as long as they come soon, and returns 0 once they do not.
func (w *Waiter) awake(epoll int, events []unix.EpollEvent) (n int, err error) {
	enough := awakeMany
	if w.bulk {
		enough, w.bulk = 1, false
	}
	for began := w.now; w.near >= enough && w.now >= w.crowded; {
		if n, err = epollNow(epoll, events); n != 0 {
			return n, err
		}
		w.letOthersRun()
		if w.now-began >= awakeFor {
			w.near = 0
		}
	}
	return 0, nil
}

// sleep waits and has the processor left to others.
func (w *Waiter) sleep(epoll int, events []unix.EpollEvent) (n int, err error) {
	began := w.now
	if w.Quiet() {
		n, err = w.parking.wait(epoll, events)
		w.now = clock.Now()
		w.turn = w.now
	} else {
		w.parking.close()
		n, err = unix.EpollWait(epoll, events, int(briskWait.Milliseconds()))
		w.now = clock.Now()
	}
	if n > 0 && w.now-began < awakeNear {
		w.near++
	} else {
		w.near = 0
	}
	return n, err
}

// letOthersRun yields the processor and returns when it is back. A program that
// computes keeps it for its slice, and what comes meanwhile is not noticed. Where
// that happens, sleeping is better: the kernel wakes who sleeps before the slice
// is over.
func (w *Waiter) letOthersRun() {
	before := w.now
	_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	w.now = clock.Now()
	took := w.now - before
	if w.yielded += took; took >= slice {
		w.slices += took
	}
	if w.yielded >= crowdWindow {
		if w.slices > w.yielded/5*4 {
			w.crowded = w.now + crowdedFor
		}
		w.yielded, w.slices = 0, 0
	}
}

// epollNow is epoll_wait(2) that does not wait, so that Go's scheduler need not know of it.
func epollNow(epoll int, events []unix.EpollEvent) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll),
		uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
