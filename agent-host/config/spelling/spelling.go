// Package spelling is which known word an unknown one may be meant as. It only works on text.
package spelling

import "strings"

// neighbours are what Lima and Vagrant call things.
var neighbours = map[string]string{
	"guestport": "guest", "guestportrange": "guest", "hostport": "host", "hostportrange": "host",
	"protocol": "proto", "portforwards": "ports",
}

// Meant returns the known word that an unknown one may be meant as, or "".
func Meant(word string, known []string) string {
	best, least := "", 3
	plain := plainWord(word)
	for _, k := range known {
		if plain == plainWord(k) || neighbours[plain] == k {
			return k
		}
		// Two mistakes in a word of four letters make it another word.
		if d := distance(word, k); d < least && 2*d < len(k) {
			best, least = k, d
		}
	}
	return best
}

// plainWord makes guestIP and guest-ip the same as guest_ip.
func plainWord(s string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(s))
}

// distance counts the letters to insert, remove, replace or swap with the next
// one on the way from a to b. Words too long to be one of ours are far away.
func distance(a, b string) int {
	if len(a) > 40 {
		return len(a)
	}
	var before []int // row i-2
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = min(row[j+1]+1, next[j]+1, row[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
