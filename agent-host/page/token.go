package page

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"sync"
	"time"
)

const (
	// linkFor is how long the token of a link holds, which is used at once or not at all.
	linkFor = time.Minute
	// sessionFor is how long a session holds that is not used.
	sessionFor = 12 * time.Hour
	// maxLinks and maxSessions are kept; the oldest go, of sessions those that were not used for longest.
	maxLinks    = 16
	maxSessions = 32
	// tokenSize is in bytes.
	tokenSize = 32
)

// tokens are those that were given out, as their hashes: what is compared tells nothing by the time it takes.
type tokens struct {
	mu              sync.Mutex
	links, sessions []token // the oldest first
}

type token struct {
	hash [sha256.Size]byte
	ends time.Time
}

// link returns a token for a link.
func (t *tokens) link() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return give(&t.links, linkFor, maxLinks)
}

// session exchanges the token of a link, which is worth nothing from then on, for that of a session.
func (t *tokens) session(link string) (session string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := find(&t.links, link)
	if i < 0 {
		return "", false
	}
	t.links = slices.Delete(t.links, i, i+1)
	return give(&t.sessions, sessionFor, maxSessions), true
}

// use reports whether a session holds, which it does for longer because it is used.
func (t *tokens) use(session string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := find(&t.sessions, session)
	if i < 0 {
		return false
	}
	one := t.sessions[i]
	one.ends = time.Now().Add(sessionFor)
	t.sessions = append(slices.Delete(t.sessions, i, i+1), one)
	return true
}

// give makes a token.
func give(all *[]token, valid time.Duration, most int) string {
	var secret [tokenSize]byte
	_, _ = rand.Read(secret[:]) // which ends the program where it fails
	text := base64.RawURLEncoding.EncodeToString(secret[:])
	if len(*all) >= most {
		*all = slices.Delete(*all, 0, len(*all)-most+1)
	}
	*all = append(*all, token{sha256.Sum256([]byte(text)), time.Now().Add(valid)})
	return text
}

// find is the index of a token that holds; -1 for none.
func find(all *[]token, text string) int {
	now := time.Now()
	*all = slices.DeleteFunc(*all, func(t token) bool { return now.After(t.ends) })
	hash := sha256.Sum256([]byte(text))
	return slices.IndexFunc(*all, func(t token) bool { return t.hash == hash })
}
