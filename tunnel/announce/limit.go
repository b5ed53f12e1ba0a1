package announce

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// Limit is what can be announced of a set, after what was announced before. Both are
// sorted.
//
// A guest has users who do not know each other: one who opens thousands of sockets
// must not hide the port of another. So what there is room for is shared by user.
// Of each user's listeners, one address of every port comes first, and before
// others those that were announced already; what is left is for further addresses.
func Limit(a Announcement, before []portlist.Listener) Announcement {
	extra := len(a.Listeners) - wire.MaxListeners
	if extra <= 0 {
		return a
	}
	all, announced := a.Listeners, inBoth(a.Listeners, before)
	users := make(map[uint32]*needs)
	var last uint32 // whose needs are n: neighbours are a user's, mostly
	var n *needs
	for from, to := 0, 0; from < len(all); from = to {
		for to++; to < len(all) && samePort(&all[from], &all[to]); to++ {
		}
		first := firstOfEach(all[from:to], announced[from:to])
		for i := from; i < to; i++ {
			user := portlist.UserOf(all[i].UID)
			if n == nil || user != last {
				if n = users[user]; n == nil {
					n = &needs{}
					users[user] = n
				}
				last = user
			}
			rank := 0
			if to > from+1 && first[user] != i-from {
				rank += 2
			}
			if !announced[i] {
				rank++
			}
			n.ranks[rank] = append(n.ranks[rank], i)
			n.count++
		}
	}
	chosen := shared(users, len(all), wire.MaxListeners)
	a.Listeners = make([]portlist.Listener, 0, wire.MaxListeners)
	for i := range all {
		if chosen[i] {
			a.Listeners = append(a.Listeners, all[i])
		}
	}
	a.ScanError = fmt.Sprintf("%d listeners more than can be announced", extra)
	return a
}

// firstOfEach is which address of a port comes first, by user; nil where there is one.
func firstOfEach(all []portlist.Listener, announced []bool) map[uint32]int {
	if len(all) == 1 {
		return nil
	}
	first := make(map[uint32]int)
	for i := range all {
		user := portlist.UserOf(all[i].UID)
		f, ok := first[user]
		if !ok || announced[i] && !announced[f] ||
			announced[i] == announced[f] && isLocalhost(all[i].Addr.Addr()) && !isLocalhost(all[f].Addr.Addr()) {
			first[user] = i
		}
	}
	return first
}

// needs is a user's listeners by the order in which they are to be announced.
type needs struct {
	ranks [4][]int
	count int
}

func samePort(a, b *portlist.Listener) bool {
	return a.Proto == b.Proto && a.Addr.Port() == b.Addr.Port()
}

// inBoth tells of each listener whether another list has its address.
func inBoth(all, other []portlist.Listener) []bool {
	in := make([]bool, len(all))
	for i, l := range all {
		for len(other) > 0 && portlist.Compare(other[0], l) < 0 {
			other = other[1:]
		}
		in[i] = len(other) > 0 && portlist.Compare(other[0], l) == 0
	}
	return in
}

// isLocalhost reports whether the guest itself finds an address at localhost.
func isLocalhost(ip netip.Addr) bool { return ip.IsUnspecified() || ip.IsLoopback() }

// shared takes as much of each user as of any other, until a user has no more or
// there is no room, and tells which of all listeners these are. Where there are more
// users than room, those with the lower numbers come first: they are the system's and
// people's, the others containers'.
func shared(users map[uint32]*needs, all, room int) (chosen []bool) {
	// From the user with the fewest to the one with the most.
	order := slices.SortedFunc(maps.Keys(users), func(a, b uint32) int {
		return cmp.Or(cmp.Compare(users[a].count, users[b].count), cmp.Compare(a, b))
	})
	chosen = make([]bool, all)
	for i, uid := range order {
		left := len(order) - i
		share := (room + left - 1) / left
		for _, rank := range users[uid].ranks {
			rank = rank[:min(share, len(rank))]
			for _, at := range rank {
				chosen[at] = true
			}
			share -= len(rank)
			room -= len(rank)
		}
	}
	return chosen
}
