package room_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/room"
)

// consumers are those of which ports are that each belong to another user or program.
func consumers(g *guest, ports int, of func(i int) *policy.Group) map[*room.Consumer]bool {
	all := make(map[*room.Consumer]bool)
	for i := range ports {
		all[g.Join(&forward{guest: g}, of(i)).Consumer()] = true
	}
	return all
}

func TestUsersAndProgramsWithoutNumberCostNoMoreThanSome(t *testing.T) {
	g := newGuest(room.New(100))
	if n := len(consumers(g, 4096, func(i int) *policy.Group { return program(fmt.Sprint(i)) })); n > 13 {
		t.Errorf("the programs of a user are told apart as %d", n)
	}
	for name, of := range map[string]func(i int) *policy.Group{
		"another user each":              func(i int) *policy.Group { return &policy.Group{UID: uint32(i)} },
		"another user and program each":  func(i int) *policy.Group { return &policy.Group{UID: uint32(i), Process: fmt.Sprint(i)} },
		"hundreds of users and programs": func(i int) *policy.Group { return &policy.Group{UID: uint32(i % 200), Process: fmt.Sprint(i)} },
		"users of the last numbers": func(i int) *policy.Group {
			return &policy.Group{UID: math.MaxUint32 - uint32(i), Process: fmt.Sprint(i)}
		},
	} {
		if n := len(consumers(newGuest(room.New(100)), 4096, of)); n > 48*13 {
			t.Errorf("%s: %d are told apart", name, n)
		}
	}
}

func TestAUserWithProgramsWithoutNumberTakesNoRoomOfAnother(t *testing.T) {
	const most = 40
	all := room.New(most)
	g := newGuest(all)
	for i := range 2 * most {
		_ = g.opensAs(all, 1000, fmt.Sprint("flood", i))
	}
	for i := range most / 2 {
		if err := g.opensAs(all, 1001, fmt.Sprint("web", i)); err != nil {
			t.Fatalf("port %d of the other user: %v", i, err)
		}
	}
}

func TestProgramsThatHaveLeftMakePlaceForOthersToBeToldApart(t *testing.T) {
	g := newGuest(room.New(100))
	var seats []*room.Seat
	for i := range 100 {
		seats = append(seats, g.Join(&forward{guest: g}, program(fmt.Sprint(i))))
	}
	for _, s := range seats {
		s.Leave()
	}
	if n := len(consumers(g, 5, func(i int) *policy.Group { return program(fmt.Sprint("new", i)) })); n != 5 {
		t.Errorf("five programs are told apart as %d", n)
	}
}
