package turns_test

import (
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/turns"
)

// Work without end goes on, and what takes a moment comes in between all the same.
func TestWhatTakesAMomentComesInBetweenWorkWithoutEnd(t *testing.T) {
	var l turns.Lock
	began, ended := make(chan struct{}), make(chan struct{})
	first := true
	go func() {
		defer close(ended)
		l.InTurns(func(u turns.Turn) bool {
			if first {
				close(began)
			}
			for first = false; !u.Over(); {
				time.Sleep(10 * time.Microsecond)
			}
			return true
		})
	}()
	<-began
	for range 100 {
		l.Look(func() {})
	}
	l.LockTurn()
	l.Close()
	l.UnlockTurn()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("work goes on after the end")
	}
	l.InTurns(func(turns.Turn) bool { t.Error("work is begun after the end"); return false })
	l.AtOnce(func(turns.Turn) bool { t.Error("work is begun after the end"); return false })
}
