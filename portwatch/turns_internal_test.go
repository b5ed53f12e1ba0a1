package portwatch

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/portwatch/events"
	"golang.org/x/sys/unix"
)

// What a program opens and closes all the time is shown now and then, and another user's
// port at once.
func TestAUserWhoIsShownOftenWaitsAndNobodyElse(t *testing.T) {
	const busy, other = 1001, 1002
	of := func(uid uint32, number uint16) []socket {
		return []socket{{proto: "tcp", family: unix.AF_INET, uid: uid, addr: netip.AddrPortFrom(netip.IPv4Unspecified(), number)}}
	}
	turns, now, shown := newTurns(), time.Now(), 0
	for ms := range 10_000 {
		at := now.Add(time.Duration(ms) * time.Millisecond)
		turns.add(of(busy, uint16(20_000+ms%500)))
		if ports := turns.take(at); len(ports) > 0 {
			shown++
			turns.paid(at, 0, 0)
		}
	}
	// 50 at first, and 40 a second.
	if shown < 400 || shown > 500 {
		t.Errorf("the busy user's ports were shown %d times in 10 s", shown)
	}
	end := now.Add(10 * time.Second)
	turns.add(of(busy, 20_000))
	turns.add(of(other, 8080))
	if next := turns.next(end.Add(time.Hour), end); next.After(end) {
		t.Errorf("the other user's turn is after %v", next.Sub(end))
	}
	if ports := turns.take(end); !slices.Equal(ports, []port{{"tcp", 8080}}) {
		t.Errorf("shown is %v, want the other user's port", ports)
	}
	if next := turns.next(end.Add(time.Hour), end); next.Sub(end) > time.Second {
		t.Errorf("the busy user waits for %v", next.Sub(end))
	}
	if ports := turns.take(end.Add(time.Second)); len(ports) == 0 {
		t.Error("the busy user's ports are never shown")
	}
}

// silent is a source that never tells anything.
type silent struct{ source }

func (silent) Of(string) string                        { return SourceEBPF }
func (silent) BindOf(uint64) events.Bind               { return events.BindUnknown }
func (silent) TellClose(string, uint8, uint16, uint64) {}

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
