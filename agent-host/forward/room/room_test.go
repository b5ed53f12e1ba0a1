package room_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/room"
)

// guest is a VM whose forwards are numbers of descriptors, one each.
type guest struct {
	*room.VM
	open, shelved int
}

// forward is one of them.
type forward struct {
	*guest
	seat *room.Seat
}

func (f *forward) Shelve(string) {
	f.seat.Close()
	f.seat.Leave()
	f.Give()
	f.open--
	f.shelved++
}

func (g *guest) Promote(*room.Row) {}

func newGuest(all *room.Room) *guest {
	g := &guest{}
	g.VM = all.Add(g)
	return g
}

func program(name string) *policy.Group { return &policy.Group{Process: name + "[1]"} }

// opens has a program open a port, with the error for which it may not.
func (g *guest) opens(all *room.Room, name string) error { return g.opensAs(all, 0, name) }

// opensAs has a program of a user do so.
func (g *guest) opensAs(all *room.Room, uid uint32, name string) error {
	p := program(name)
	p.UID = uid
	if err := all.Make(g.NeedOf(p)); err != nil {
		return err
	}
	f := &forward{guest: g}
	f.seat = g.Join(f, p)
	f.seat.Open()
	g.Take()
	g.open++
	return nil
}

// fill does what there is to do after others have opened ports.
func fill(all *room.Room) { all.Fill(func() bool { return false }) }

func TestANewPortDoesNotWaitForOthersToGiveWay(t *testing.T) {
	const most = 100
	all := room.New(most)
	hog, modest := newGuest(all), newGuest(all)
	for range most {
		if err := hog.opens(all, "flood"); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		if err := modest.opens(all, "web"); err != nil {
			t.Fatal(err)
		}
	}
	if hog.shelved > 0 {
		t.Errorf("%d gave way before", hog.shelved)
	}
	fill(all)
	if hog.open != most-5 || modest.open != 5 {
		t.Errorf("then the hog has %d, the modest one %d", hog.open, modest.open)
	}
	// That is for a few at a time.
	for range most / 4 {
		if err := modest.opens(all, "web"); err != nil {
			t.Fatal(err)
		}
		if extra := hog.open + modest.open - most; extra > 16 {
			t.Fatalf("%d are open that there is no room for", extra)
		}
	}
	fill(all)
	if hog.open+modest.open != most {
		t.Errorf("in the end the hog has %d, the modest one %d", hog.open, modest.open)
	}
}

func TestPortsThatDoNotWaitAreNoMoreThanAShare(t *testing.T) {
	const most = 24
	all := room.New(most)
	hog, modest := newGuest(all), newGuest(all)
	for range most {
		_ = hog.opens(all, "flood")
	}
	for range most {
		_ = modest.opens(all, "web")
	}
	fill(all)
	if hog.open+modest.open != most || hog.open < modest.open {
		t.Errorf("the hog has %d, the modest one %d", hog.open, modest.open)
	}
}

func TestAVMGivesWayForItselfAndNotForOthers(t *testing.T) {
	all := room.New(38)
	hog, other, modest := newGuest(all), newGuest(all), newGuest(all)
	for range 20 {
		_ = hog.opens(all, "flood")
	}
	for range 18 {
		_ = other.opens(all, "ftp")
	}
	for range 3 {
		_ = modest.opens(all, "web") // the hog is to give way
	}
	if err := other.opens(all, "web"); err != nil {
		t.Fatal(err)
	}
	if hog.open != 17 || other.open != 18 || other.shelved != 1 || modest.open != 3 {
		t.Errorf("the hog has %d, the other %d after %d gave way, the modest one %d", hog.open, other.open, other.shelved, modest.open)
	}
}

func TestWhoHasMostMakesRoomUntilAllHaveAboutAsMuch(t *testing.T) {
	const most = 40
	all := room.New(most)
	hog, modest := newGuest(all), newGuest(all)
	for i := range 2 * most {
		err := hog.opens(all, fmt.Sprintf("flood%d", i))
		if i >= most && !errors.Is(err, room.ErrShare) {
			t.Fatalf("port %d: %v", i, err)
		}
	}
	for range 2 * most {
		_ = modest.opens(all, "web")
	}
	fill(all)
	if hog.open+modest.open != most || hog.open < modest.open || hog.open > modest.open+5 || hog.shelved == 0 || modest.shelved > 0 {
		t.Errorf("the hog has %d, the modest one %d", hog.open, modest.open)
	}
	if err := all.MayHave(modest.NeedOf(program("web"))); !errors.Is(err, room.ErrShare) {
		t.Errorf("it may have more: %v", err)
	}
}

func TestInAVMTheProgramWithMostMakesRoomForTheOthers(t *testing.T) {
	all := room.New(2 * room.MaxBound)
	g := newGuest(all)
	for range room.MaxBound {
		if err := g.opens(all, "flood"); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.opens(all, "flood"); !errors.Is(err, room.ErrTooMany) {
		t.Errorf("the program with most: %v", err)
	}
	if err := g.opens(all, "web"); err != nil || g.open != room.MaxBound || g.shelved != 1 {
		t.Errorf("another: %v; %d are open, %d made room", err, g.open, g.shelved)
	}
}

func TestAVMTakesNoMoreThanItsShareBesideWhatOthersExpect(t *testing.T) {
	const most = 100
	all := room.New(most)
	first, second := newGuest(all), newGuest(all)
	first.Expect(most)
	second.Expect(most)
	for range most {
		_ = first.opens(all, "flood")
	}
	if first.open != most/2 {
		t.Errorf("it has %d of %d while another expects as many", first.open, most)
	}
	// What it has, its users share all the same.
	for range most / 10 {
		if err := first.opensAs(all, 1000, "web"); err != nil {
			t.Fatal(err)
		}
	}
	if first.open != most/2 {
		t.Errorf("with another user's it has %d", first.open)
	}
	second.Expect(10)
	for range most {
		_ = first.opens(all, "flood")
	}
	if first.open != most-10 {
		t.Errorf("it has %d beside 10 that are expected", first.open)
	}
	second.Expect(0)
	for range most {
		_ = first.opens(all, "flood")
	}
	if first.open != most {
		t.Errorf("it has %d where nobody expects anything", first.open)
	}
}
