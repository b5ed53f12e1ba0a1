package portwatch

import "time"

// HolderIn is Holder on another procfs.
var HolderIn = holderIn

// SetCPUTime replaces the clock of the CPU time that scans use. It must be called
// before Run.
func (w *Watcher) SetCPUTime(clock func() time.Duration) { w.cpuTime = clock }
