package cpushare_test

import (
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/portwatch/cpushare"
)

// What a program opens and closes all the time is looked at now and then, and another user's
// port at once.
func TestAUserWhoIsShownOftenWaitsAndNobodyElse(t *testing.T) {
	const busy, other = 1001, 1002
	now, looks := time.Now(), 0
	isQuiet := make(map[uint32]bool)
	turns := cpushare.NewTurns(cpushare.Shares{All: 10, User: 4, Least: time.Millisecond, LeastOfTurn: time.Millisecond, MaxTurn: time.Second}, now,
		func(user uint32, quiet bool) { isQuiet[user] = quiet })
	at := now
	for ms := range 10_000 {
		at = now.Add(time.Duration(ms) * time.Millisecond)
		if !turns.Of([]uint32{busy}, at, at).After(at) {
			looks++
			turns.Owe(at, time.Millisecond, busy)
		}
		turns.Pay(at)
	}
	// 32 at first, and 40 a second.
	if looks < 400 || looks > 450 {
		t.Errorf("it was the busy user's turn %d times in 10 s", looks)
	}
	if !isQuiet[busy] || isQuiet[other] {
		t.Errorf("quiet is %v, want the busy user alone", isQuiet)
	}
	if due := turns.Of([]uint32{busy, other}, at, at); due.After(at) {
		t.Errorf("the other user waits for %v", due.Sub(at))
	}
	due := turns.Of([]uint32{busy}, at, at)
	if wait := due.Sub(at); wait <= 0 || wait > 50*time.Millisecond {
		t.Errorf("the busy user waits for %v", wait)
	}
	if next := turns.Next(at.Add(time.Hour), at); next != due {
		t.Errorf("the next turn is after %v, want %v", next.Sub(at), due.Sub(at))
	}
	turns.Pay(due)
	if isQuiet[busy] {
		t.Error("who is not busy any more wakes nobody")
	}
}
