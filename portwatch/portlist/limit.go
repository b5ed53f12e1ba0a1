package portlist

import "slices"

// MaxOfUser is how many listeners of one user are told apart, but for root. One program can
// have any number, and whoever waits for another's port would wait for work on all of them.
const MaxOfUser = 1024

// Limit leaves out what users have beyond MaxOfUser, and returns these users in order. What was
// there before stays, and otherwise what comes first. Both lists are sorted as by Compare.
func Limit(all, before []Listener) (kept []Listener, over []uint32) {
	if len(all) <= MaxOfUser {
		return all, nil
	}
	room := make(map[uint32]int)
	for _, l := range all {
		room[UserOf(l.UID)]++
	}
	for user, n := range room {
		if n > MaxOfUser && user != 0 {
			over = append(over, user)
			room[user] = MaxOfUser
		}
	}
	if len(over) == 0 {
		return all, nil
	}
	slices.Sort(over)
	// Of these users, first those that stay, and then as many as there is room for.
	known := make([]bool, len(all))
	for i, l := range all {
		for len(before) > 0 && Compare(before[0], l) < 0 {
			before = before[1:]
		}
		if user := UserOf(l.UID); len(before) > 0 && UserOf(before[0].UID) == user && room[user] > 0 && Compare(before[0], l) == 0 {
			known[i] = true
			room[user]--
		}
	}
	kept = make([]Listener, 0, min(len(all), len(room)*MaxOfUser))
	for i, l := range all {
		user := UserOf(l.UID)
		if !known[i] {
			if room[user] == 0 {
				continue
			}
			room[user]--
		}
		kept = append(kept, l)
	}
	return kept, over
}
