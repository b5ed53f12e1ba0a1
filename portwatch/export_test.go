package portwatch

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// HolderIn is Holder on another procfs.
var HolderIn = holderIn

// CgroupMounts is what finds cgroups in a mountinfo.
var CgroupMounts = cgroupMounts

// SetCPUTime replaces the clock of the CPU time that scans use. It must be called
// before Run.
func (w *Watcher) SetCPUTime(clock func() time.Duration) { w.cpuTime = clock }

// A Kernel is a source of events that a test may stop and kill.
type Kernel struct {
	source
	mu    sync.Mutex // held while stopped
	waits atomic.Int64
}

// Waits is how often somebody has waited for events.
func (k *Kernel) Waits() int64 { return k.waits.Load() }

// Stop keeps events from being read until Go.
func (k *Kernel) Stop() { k.mu.Lock(); k.wake() }

// Go ends a Stop.
func (k *Kernel) Go() { k.mu.Unlock() }

func (k *Kernel) wait(deadline time.Time, events []event) ([]event, bool, error) {
	k.waits.Add(1)
	k.awaitGo()
	return k.source.wait(deadline, events)
}

func (k *Kernel) awaitGo() {
	k.mu.Lock()
	defer k.mu.Unlock()
}

// Detach takes the programs from the cgroup, as another program could.
func (k *Kernel) Detach() error {
	k.mu.Lock() // it is not closed meanwhile
	defer k.mu.Unlock()
	for _, l := range k.source.(*bpf).links {
		if err := l.(interface{ Detach() error }).Detach(); err != nil {
			return err
		}
	}
	return nil
}

// Read returns the number of events until there are none for 50 ms.
func (k *Kernel) Read() (n int, err error) {
	for {
		events, _, err := k.source.wait(time.Now().Add(50*time.Millisecond), nil)
		if err != nil || len(events) == 0 {
			return n, err
		}
		n += len(events)
	}
}

func (k *Kernel) close() error {
	k.awaitGo()
	return k.source.close()
}

// Close ends it.
func (k *Kernel) Close() error { return k.close() }

// OpenCgroup attaches to a cgroup, with a ring buffer of some bytes.
func OpenCgroup(cgroup string, ring int) (*Kernel, error) {
	b, err := openCgroup(cgroup, ring)
	if b == nil {
		return nil, err
	}
	return &Kernel{source: b}, err
}

// OpenTracepoint attaches to the tracepoint.
func OpenTracepoint() (*Kernel, error) {
	b, err := openTracepoint(ringSize)
	if err != nil {
		return nil, err
	}
	return &Kernel{source: b}, nil
}

// WatchFrom is Watch with other sources, and another time between two looks at
// everything.
func WatchFrom(s *Scanner, safety time.Duration, log *slog.Logger, kernels ...*Kernel) *Watcher {
	w := Watch(s, 0, log)
	w.sources, w.safety = nil, safety
	for _, k := range kernels {
		w.sources = append(w.sources, func() (source, error) {
			if k == nil {
				return nil, errors.New("not here")
			}
			return k, nil
		})
	}
	return w
}
