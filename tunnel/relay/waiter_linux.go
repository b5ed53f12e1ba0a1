package relay

import (
	"time"
	"unsafe"

	"github.com/rum-vm/rum-agent/tunnel/clock"
	"golang.org/x/sys/unix"
)

// waiter is how a loop waits: asleep, or awake where the next thing comes at any
// moment. To wake a sleeping thread on another processor takes the waker longer
// than to move 64 KiB, in a virtual machine at least, so in a transfer everyone
// would be busy waking the next.
type waiter struct {
	bulk    bool          // set by who has moved much since the last wait
	near    int           // how many times in a row something came soon
	yielded time.Duration // how long others had the processor, of late
	slices  time.Duration // and how much of that they took as whole slices
	crowded time.Duration // until when there is no staying awake for that
	now     time.Duration // the clock, when last looked at
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

// wait is epoll_wait(2).
func (w *waiter) wait(epoll int, events []unix.EpollEvent, timeout int) (int, error) {
	enough := awakeMany
	if w.bulk {
		enough, w.bulk = 1, false
	}
	w.now = clock.Now()
	began := w.now
	for w.near >= enough && !w.crowd() {
		n, err := epollNow(epoll, events)
		if n != 0 {
			return n, err
		}
		w.letOthersRun()
		if w.now-began >= awakeFor {
			w.near, began = 0, w.now
		}
	}
	n, err := unix.EpollWait(epoll, events, timeout)
	w.now = clock.Now()
	if n > 0 && w.now-began < awakeNear {
		w.near++
	} else {
		w.near = 0
	}
	return n, err
}

// crowd tells whether others compute, so that there is no staying awake.
func (w *waiter) crowd() bool { return w.now < w.crowded }

// letOthersRun yields the processor and returns when it is back. A program that
// computes keeps it for its slice, and what comes meanwhile is not noticed. Where
// that happens, sleeping is better: the kernel wakes who sleeps before the slice
// is over.
func (w *waiter) letOthersRun() {
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

// epollNow is epoll_wait(2) that does not wait.
func epollNow(epoll int, events []unix.EpollEvent) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll),
		uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
