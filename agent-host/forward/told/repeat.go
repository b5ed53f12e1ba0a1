package told

import (
	"context"
	"time"
)

const (
	// tellAfter joins changes of what a guest is told.
	tellAfter = 100 * time.Millisecond
	// tellRest is how many times as long nothing is told as it took before: a VM may
	// have thousands of ports, and changes without end.
	tellRest = 50
)

// Repeat tells again and again, with a rest before each time, until there is nothing more to
// tell or ctx ends.
func Repeat(ctx context.Context, tell func() (more bool)) {
	for pause := tellAfter; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		began := time.Now()
		if !tell() {
			return
		}
		pause = max(tellAfter, tellRest*time.Since(began))
	}
}
