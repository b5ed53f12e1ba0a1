package portwatch

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/portwatch/process"
	"golang.org/x/sys/unix"
)

// DefaultInterval is the time between two scans unless told otherwise.
const DefaultInterval = 100 * time.Millisecond

// State is what a Watcher knows.
type State struct {
	// Generation counts the changes of Listeners; 0 means that no scan has
	// succeeded yet.
	Generation uint64
	// Listeners are sorted as by Scan. The list is complete, but for users who have more than
	// there may be of one (portlist.MaxOfUser). It is shared: do not modify it.
	Listeners []portlist.Listener
	// Over are those users, as of the latest scan that was not of some ports only.
	Over []uint32
	// Sources are what tells the Watcher when to look.
	Sources Sources
	// Err is why the latest scan failed, or nil. Listeners is then what the
	// last successful scan found.
	Err error
}

// Sources are what tells of TCP and of UDP sockets that come and go: SourceEBPF,
// SourceTracepoint or SourcePoll, or "" before it is known.
type Sources struct {
	TCP string `json:"tcp"`
	UDP string `json:"udp"`
}

// A Watcher scans again and again and keeps the latest result. Followers read
// it at their own pace, so a slow one delays nobody and skips what it missed.
type Watcher struct {
	scan     func() ([]portlist.Listener, error)
	interval time.Duration
	cpuTime  func() time.Duration // of the calling thread

	mu      sync.Mutex
	state   State
	changed chan struct{}

	// What follows is for a Watcher that events tell when to look.
	scanner *Scanner // nil for any other
	sources []func() (source, error)
	safety  time.Duration // the time between two looks at everything
	log     *slog.Logger
	nudged  atomic.Bool // look at everything

	elsewhere chan struct{} // has a token when something happened in other network namespaces; nil for nobody to tell
	nameless  chan struct{} // has a token when sockets were shown
	unsettled atomic.Bool   // they were others than before, and nobody has looked since
	lookTook  atomic.Int64  // the CPU time of the last look
	showing   sync.Mutex
	shown     map[port][]socket        // last
	owners    map[uint64]process.Owner // of the sockets, by inode
}

// NewWatcher returns a Watcher that calls scan, usually Scanner.Scan, from Run
// only. An interval of 0 or less means DefaultInterval.
func NewWatcher(scan func() ([]portlist.Listener, error), interval time.Duration) *Watcher {
	if interval <= 0 {
		interval = DefaultInterval
	}
	return &Watcher{scan: scan, interval: interval, cpuTime: threadTime, changed: make(chan struct{})}
}

// Watch returns a Watcher of what a Scanner sees. Where the kernel lets it, it is told of
// each socket that begins or ceases to listen, and Process follows a moment later than
// its listener; elsewhere it scans at the interval, as that of NewWatcher. From then on
// the Scanner is the Watcher's.
func Watch(s *Scanner, interval time.Duration, log *slog.Logger) *Watcher {
	w := NewWatcher(s.Scan, interval)
	w.scanner, w.log, w.nameless = s, log, make(chan struct{}, 1)
	w.sources, w.safety = bestSources(false), safetyInterval
	return w
}

// Elsewhere returns a channel that has a token when a socket has come or gone in another
// network namespace, as far as the kernel tells: at a source of SourceEBPF, of TCP since
// Linux 5.16. It is called once, before Run.
func (w *Watcher) Elsewhere() <-chan struct{} {
	w.elsewhere, w.sources = make(chan struct{}, 1), bestSources(true)
	return w.elsewhere
}

// tellElsewhere tells whoever has called Elsewhere.
func (w *Watcher) tellElsewhere() {
	select {
	case w.elsewhere <- struct{}{}:
	default:
	}
}

// State returns the current state and a channel that is closed as soon as
// there is a newer one: the listeners changed, or scans began or ceased to
// fail. It may be called from any goroutine, also while Run is not running.
func (w *Watcher) State() (State, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state, w.changed
}

// maxPause is the longest time between two scans: as long as a port may be late.
const maxPause = time.Second

// Run keeps the state up to date until ctx ends, and returns nil.
func (w *Watcher) Run(ctx context.Context) error {
	if w.scanner == nil {
		return w.poll(ctx)
	}
	return w.follow(ctx)
}

// poll scans at once and then at the interval until ctx ends, and returns nil.
// Scans that are much work are spaced out so that they use no more than a tenth of
// one CPU, or a scan a second. What others make them wait does not count: a machine
// that is busy or was paused has new ports all the same.
func (w *Watcher) poll(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		runtime.LockOSThread() // the CPU time is that of a thread
		start, spent := time.Now(), w.cpuTime()
		w.update(w.confirmedScan())
		took, spent := time.Since(start), w.cpuTime()-spent
		runtime.UnlockOSThread()
		timer.Reset(max(w.interval-took, min(9*spent, maxPause)))
	}
}

// confirmedScan scans, and once more if a listener is missing. The kernel
// hands out its tables in pieces and may skip a row when a neighbour goes away
// between two of them, so only what is missing twice has been closed.
func (w *Watcher) confirmedScan() ([]portlist.Listener, error) {
	first, err := w.scan()
	if err != nil {
		return nil, err
	}
	known, _ := w.State()
	if _, removed := portlist.Diff(known.Listeners, first); len(removed) == 0 {
		return first, nil
	}
	second, err := w.scan()
	if err != nil {
		return nil, err
	}
	_, missed := portlist.Diff(first, second)
	second = append(second, missed...)
	slices.SortFunc(second, portlist.Compare)
	return second, nil
}

// update reports whether there is something new.
func (w *Watcher) update(listeners []portlist.Listener, err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	listeners, over := portlist.Limit(listeners, w.state.Listeners)
	return w.set(listeners, over, w.state.Generation == 0 || !slices.Equal(listeners, w.state.Listeners), err)
}

// set is update where it is known whether the listeners differ. It needs w.mu.
func (w *Watcher) set(listeners []portlist.Listener, over []uint32, differ bool, err error) bool {
	next := w.state
	next.Err = err
	changed := (err == nil) != (w.state.Err == nil)
	if err == nil && !slices.Equal(over, next.Over) {
		next.Over, changed = over, true
	}
	if err == nil && differ {
		next.Generation++
		next.Listeners = listeners
		changed = true
	}
	w.state = next
	if changed {
		close(w.changed)
		w.changed = make(chan struct{})
	}
	return changed
}

func (w *Watcher) setSources(s Sources) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state.Sources = s
}

// threadTime is the CPU time that this thread has used.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
