package page

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestLinksAndSessionsEndAndAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all tokens
		link := all.link()
		time.Sleep(linkFor + time.Second)
		if _, ok := all.session(link); ok {
			t.Error("a link holds for longer than it should")
		}
		first := all.link()
		for range maxLinks {
			all.link()
		}
		if _, ok := all.session(first); ok || len(all.links) != maxLinks {
			t.Errorf("%d links are kept", len(all.links))
		}
		open := func() string {
			session, ok := all.session(all.link())
			if !ok {
				t.Fatal("no session")
			}
			return session
		}
		used, idle := open(), open()
		time.Sleep(sessionFor - time.Minute)
		if !all.use(used) {
			t.Error("a session ends too soon")
		}
		time.Sleep(2 * time.Minute)
		if all.use(idle) || !all.use(used) {
			t.Error("who is not used ends, and who is does not")
		}
		for range maxSessions - 1 {
			open()
		}
		if !all.use(used) {
			t.Error("it has gone, and another could")
		}
		open()
		if !all.use(used) || len(all.sessions) != maxSessions {
			t.Errorf("%d sessions are kept, and the one that is used is not", len(all.sessions))
		}
	})
}
