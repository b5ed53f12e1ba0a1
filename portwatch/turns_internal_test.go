package portwatch

import (
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/portwatch/events"
	"golang.org/x/sys/unix"
)

// What a user does who opens and closes more than may wait for him is looked at once, at
// his turn, and costs another's port nothing.
func TestAUserWhoOpensTooMuchIsLookedAtAsAWholeAtHisTurn(t *testing.T) {
	const busy, other = 1001, 1002
	f := newFollower(Watch(new(Scanner), 0, slog.New(slog.DiscardHandler)), silent{quiet: make(map[uint32]bool)})
	now := time.Now()
	f.due["tcp"], f.due["udp"] = now.Add(time.Hour), now.Add(time.Hour)
	open := func(user uint32, port int) {
		f.note(event{place{"tcp", unix.AF_INET, uint16(port)}, uint64(user)<<32 | uint64(port), true, user}, now)
	}
	for port := range 10_000 {
		open(busy, 20_000+port)
	}
	f.turns.Owe(now, time.Second, busy)
	f.turns.Pay(now)
	if len(f.pending) > maxPlacesOfUser+2 {
		t.Errorf("%d places wait", len(f.pending))
	}
	open(other, 8080)
	if a := f.ask(now); !slices.Equal(a.places, []place{{"tcp", unix.AF_INET, 8080}}) || !maps.Equal(a.users, map[uint32]int{other: 1}) {
		t.Errorf("%v is looked at for %v, want the other user's port", a.places, a.users)
	}
	if a := f.ask(now.Add(time.Minute)); !slices.Equal(a.whole, []string{"tcp"}) || a.everything {
		t.Errorf("all is looked at of %v, everything is %v, want all of tcp", a.whole, a.everything)
	}
}

// silent is a source that never tells anything.
type silent struct {
	source
	quiet map[uint32]bool
}

func (silent) Of(string) string                                { return SourceEBPF }
func (silent) BindOf(uint64) events.Bind                       { return events.BindUnknown }
func (silent) TellClose(string, uint8, uint16, uint64, uint32) {}
func (s silent) SetQuiet(user uint32, quiet bool)              { s.quiet[user] = quiet }

// Any Go program has listeners of MPTCP, and the kernel does not say where the one was
// that is gone. That is no reason to look at thousands of sockets.
func TestOnlyWhatIsOlderThanTheEventsIsLookedAtWhenAListenerOfMPTCPGoes(t *testing.T) {
	w := Watch(new(Scanner), 0, slog.New(slog.DiscardHandler))
	f := newFollower(w, silent{})
	now := time.Now()
	f.due["tcp"], f.due["udp"] = now.Add(time.Hour), now.Add(time.Hour)
	gone := event{place: place{proto: "tcp", family: unix.AF_INET}}
	f.note(gone, now)
	if a := f.ask(now); len(a.places) > 0 {
		t.Errorf("%v is looked at, and nothing is older than the events", a.places)
	}
	old := place{"tcp", unix.AF_INET, 22}
	f.older[1] = old
	f.note(gone, now)
	if a := f.ask(now); !slices.Equal(a.places, []place{old}) {
		t.Errorf("%v is looked at, want %v", a.places, old)
	}
	clear(f.pending)
	f.note(gone, now)
	if a := f.ask(now); len(a.places) > 0 {
		t.Errorf("%v is looked at again at once", a.places)
	}
	if a := f.ask(now.Add(olderPause)); !slices.Equal(a.places, []place{old}) {
		t.Errorf("%v is looked at later, want %v", a.places, old)
	}
}
