package portwatch

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rum-vm/rum-agent/portwatch/events"
)

// HolderIn is Holder on another procfs.
var HolderIn = holderIn

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
func (k *Kernel) Stop() { k.mu.Lock(); k.Wake() }

// Go ends a Stop.
func (k *Kernel) Go() { k.mu.Unlock() }

// Wait waits for events while not stopped.
func (k *Kernel) Wait(deadline time.Time, batch []events.Event) ([]events.Event, events.Lost, error) {
	k.waits.Add(1)
	k.awaitGo()
	return k.source.Wait(deadline, batch)
}

func (k *Kernel) awaitGo() {
	k.mu.Lock()
	defer k.mu.Unlock()
}

// Read returns the number of events until there are none for 50 ms.
func (k *Kernel) Read() (n int, err error) {
	for {
		batch, _, err := k.source.Wait(time.Now().Add(50*time.Millisecond), nil)
		if err != nil || len(batch) == 0 {
			return n, err
		}
		n += len(batch)
	}
}

// Close ends it.
func (k *Kernel) Close() error {
	k.awaitGo()
	return k.source.Close()
}

// OpenCgroup attaches to a cgroup, with a ring buffer of some bytes.
func OpenCgroup(cgroup string, ring int) (*Kernel, error) {
	b, err := events.OpenCgroup(events.Options{Cgroup: cgroup, Ring: ring})
	if b == nil {
		return nil, err
	}
	return &Kernel{source: b}, err
}

// OpenTracepoint attaches to the tracepoint.
func OpenTracepoint() (*Kernel, error) {
	b, err := events.OpenTracepoint()
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

// LookRarely has a Watcher that was told of sockets whose cookies it does not know look for
// their end an hour later.
func (w *Watcher) LookRarely() { w.interval = time.Hour }
