package integration

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// TestPortsThatBeginToListenAtOnceAreOneMessage has them begin while the guest agent does not run, so that they
// have all begun when it looks.
func TestPortsThatBeginToListenAtOnceAreOneMessage(t *testing.T) {
	const first, count = 7400, 50
	g := newGuest(t, "dev")
	heard := announced(t, g)
	g.listen(t, fmt.Sprintf("127.0.0.1:%d", first-1))
	firstOf(t, heard, first-1, 1) // it watches
	pid := g.agent.cmd.Process.Pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "every thread of the guest agent to stand still", func() bool { return standsStill(t, pid) })
	for port := range count {
		g.listen(t, fmt.Sprintf("127.0.0.1:%d", first+port))
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if n := firstOf(t, heard, first, count); n != count {
		t.Errorf("of %d ports the first message tells of %d", count, n)
	}
}

// standsStill reports whether no thread of a process runs any more: SIGSTOP takes its time, in which one might still
// look.
func standsStill(t *testing.T, pid int) bool {
	t.Helper()
	threads, err := procfs.AllThreads(pid)
	if err != nil {
		t.Fatal(err)
	}
	return !slices.ContainsFunc(threads, func(thread procfs.Proc) bool {
		stat, err := thread.Stat()
		return err != nil || stat.State != "T"
	})
}

// firstOf is of how many ports of a range the first message tells that tells of any.
func firstOf(t *testing.T, heard <-chan announce.Announcement, first, count uint16) (n int) {
	t.Helper()
	for deadline := time.After(15 * time.Second); n == 0; {
		select {
		case a := <-heard:
			for _, l := range a.Listeners {
				if p := l.Addr.Port(); p >= first && p < first+count {
					n++
				}
			}
		case <-deadline:
			t.Fatal("the ports are not announced")
		}
	}
	return n
}

// announced is what a guest agent announces to a host.
func announced(t *testing.T, g *guestVM) <-chan announce.Announcement {
	t.Helper()
	key, err := keyfile.Read(g.key)
	if err != nil {
		t.Fatal(err)
	}
	at, err := endpoint.Parse("unix:" + g.socket)
	if err != nil {
		t.Fatal(err)
	}
	var link *tunnel.Link
	eventually(t, "the guest agent", func() bool {
		link, err = tunnel.Dial(t.Context(), at, tunnel.Config{Key: key[:]})
		return err == nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	heard, ended := make(chan announce.Announcement, 1000), make(chan struct{})
	go func() {
		defer close(ended)
		_ = link.Run(ctx, func(a announce.Announcement) { heard <- a })
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return heard
}
