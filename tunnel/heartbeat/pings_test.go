package heartbeat_test

import (
	"math"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/heartbeat"
)

func TestSilenceIsJudgedOnlyWhileWeListen(t *testing.T) {
	var p heartbeat.Pings
	at := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	p.Beat(at(0), time.Second)
	heard := at(0.5)
	for s := 1.0; s <= 5; s++ {
		if !p.Beat(at(s), time.Second) {
			t.Errorf("the heartbeat at %v s counts as late", s)
		}
	}
	if got := p.Silence(at(5.1), heard); got != at(4.6) {
		t.Errorf("silent for %v, want 4.6 s", got)
	}
	// Stopped until 20 s: nothing is judged before the next heartbeat, nor by what
	// was not heard before it.
	if got := p.Silence(at(20), heard); got != 0 {
		t.Errorf("judged %v of silence while our own heartbeat was late", got)
	}
	if p.Beat(at(20), time.Second) {
		t.Error("a heartbeat 15 s late counts as on time")
	}
	if got := p.Silence(at(20.5), heard); got != at(0.5) {
		t.Errorf("silent for %v, want 0.5 s: the guest has just been asked", got)
	}
}

// TestAClockIsJudgedByNoMoreThanIsKnown: an answer says nothing of when it was given, but that this was after the question.
func TestAClockIsJudgedByNoMoreThanIsKnown(t *testing.T) {
	const hour = time.Hour
	wall := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		guest     int64
		roundTrip time.Duration
		want      time.Duration
	}{
		"the same":                         {wall.UnixNano(), 0, 0},
		"an hour behind":                   {wall.Add(-hour).UnixNano(), time.Millisecond, -hour + time.Millisecond},
		"an hour ahead":                    {wall.Add(hour).UnixNano(), time.Millisecond, hour},
		"answered before an hour of pause": {wall.Add(-hour).UnixNano(), hour, 0},
		"behind, and paused for longer":    {wall.Add(-hour).UnixNano(), 2 * hour, 0},
		"none told":                        {0, time.Millisecond, 0},
		"the first that can be said":       {math.MinInt64, hour, math.MinInt64 + hour},
		"the last that can be said":        {math.MaxInt64, hour, time.Unix(0, math.MaxInt64).Sub(wall)},
	} {
		var p heartbeat.Pings
		const asked = 7 * time.Second
		if err := p.Answered(p.Ask(asked), c.guest, asked+c.roundTrip, wall); err != nil {
			t.Fatal(err)
		}
		if got := p.Ahead(); got != c.want {
			t.Errorf("%s: ahead by %v, want %v", name, got, c.want)
		}
	}
	// Of a clock on this side that stands at 1970, all that can be said is far ahead.
	var p heartbeat.Pings
	if err := p.Answered(p.Ask(0), math.MaxInt64, hour, time.Unix(0, 0)); err != nil || p.Ahead() <= 0 {
		t.Errorf("%v, ahead by %v", err, p.Ahead())
	}
}

func TestAnAnswerThatIsNotDueIsAnError(t *testing.T) {
	var p heartbeat.Pings
	if p.Answered(1, 0, 0, time.Now()) == nil {
		t.Error("nothing was asked, and it counts as answered")
	}
	p.Ask(0)
	p.Ask(0)
	if p.Answered(2, 0, 0, time.Now()) == nil {
		t.Error("the second answer counts before the first")
	}
	if err := p.Answered(1, 0, 0, time.Now()); err != nil || !p.Waiting() {
		t.Errorf("%v; waiting for the second: %v", err, p.Waiting())
	}
}
