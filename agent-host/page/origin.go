package page

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
)

// fresh is a name below localhost for the page that nothing in a browser belongs to yet. It is one label, and
// names of ports have two at least.
func fresh() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // which ends the program where it fails
	return "page-" + hex.EncodeToString(b[:])
}

var freshName = regexp.MustCompile(`^page-[0-9a-f]{16}$`)

// isFresh reports whether a name can be from fresh. Which one does not matter: what is asked for takes a session.
func isFresh(name string) bool { return freshName.MatchString(name) }
