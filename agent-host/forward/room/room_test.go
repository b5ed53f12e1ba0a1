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
func (g *guest) opens(all *room.Room, name string) error {
	if err := all.Make(g.NeedOf(program(name))); err != nil {
		return err
	}
	f := &forward{guest: g}
	f.seat = g.Join(f, program(name))
	f.seat.Open()
	g.Take()
	g.open++
	return nil
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
