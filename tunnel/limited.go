package tunnel

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// portKey is what one forward on the host can stand for.
type portKey struct {
	proto string
	port  uint16
}

// limited is what can be announced of a set, after what was announced before.
//
// A guest has users who do not know each other: one who opens thousands of sockets
// must not hide the port of another. So what there is room for is shared by user.
// Of each user's listeners, one address of every port comes first, and before
// others those that were announced already; what is left is for further addresses.
func limited(a Announcement, before []portwatch.Listener) Announcement {
	extra := len(a.Listeners) - wire.MaxListeners
	if extra <= 0 {
		return a
	}
	announced := make(map[listenerKey]bool, len(before))
	for _, l := range before {
		announced[keyOf(l)] = true
	}
	users := make(map[uint32][]portwatch.Listener)
	for _, l := range a.Listeners {
		user := portwatch.UserOf(l.UID)
		users[user] = append(users[user], l)
	}
	for uid, ls := range users {
		users[uid] = byNeed(ls, announced)
	}
	chosen := shared(users, wire.MaxListeners)
	slices.SortFunc(chosen, func(a, b portwatch.Listener) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Addr.Port(), b.Addr.Port()), a.Addr.Addr().Compare(b.Addr.Addr()))
	})
	a.Listeners = chosen
	a.ScanError = fmt.Sprintf("%d listeners more than can be announced", extra)
	return a
}

// byNeed puts a user's listeners in the order in which they are to be announced.
func byNeed(ls []portwatch.Listener, announced map[listenerKey]bool) []portwatch.Listener {
	first := make(map[portKey]portwatch.Listener) // the address of each port
	better := func(a, b portwatch.Listener) bool {
		if x, y := announced[keyOf(a)], announced[keyOf(b)]; x != y {
			return x
		}
		return isLocalhost(a.Addr.Addr()) && !isLocalhost(b.Addr.Addr())
	}
	for _, l := range ls {
		k := portKey{l.Proto, l.Addr.Port()}
		if f, ok := first[k]; !ok || better(l, f) {
			first[k] = l
		}
	}
	var ranks [4][]portwatch.Listener
	for _, l := range ls {
		n := 0
		if keyOf(first[portKey{l.Proto, l.Addr.Port()}]) != keyOf(l) {
			n += 2
		}
		if !announced[keyOf(l)] {
			n++
		}
		ranks[n] = append(ranks[n], l)
	}
	return slices.Concat(ranks[:]...)
}

// isLocalhost reports whether the guest itself finds an address at localhost.
func isLocalhost(ip netip.Addr) bool { return ip.IsUnspecified() || ip.IsLoopback() }

// shared takes as much of each user as of any other, until a user has no more or
// there is no room. Where there are more users than room, those with the lower
// numbers come first: they are the system's and people's, the others containers'.
func shared(users map[uint32][]portwatch.Listener, room int) []portwatch.Listener {
	// From the user with the fewest to the one with the most.
	order := make([]uint32, 0, len(users))
	for uid := range users {
		order = append(order, uid)
	}
	slices.SortFunc(order, func(a, b uint32) int {
		return cmp.Or(cmp.Compare(len(users[a]), len(users[b])), cmp.Compare(a, b))
	})
	var chosen []portwatch.Listener
	for i, uid := range order {
		left := len(order) - i
		share := (room - len(chosen) + left - 1) / left
		chosen = append(chosen, users[uid][:min(share, len(users[uid]))]...)
	}
	return chosen
}
