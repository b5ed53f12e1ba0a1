package hostagent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
)

func TestAKnockIsFollowedByAnAttemptButNotByMoreThanOneASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &vm{VM: VM{Endpoint: endpoint.Endpoint{Scheme: endpoint.SchemeVsock, CID: 7}}, knocks: make(chan struct{}, 1), log: slog.New(slog.DiscardHandler)}
		a := &Agent{vms: []*vm{v}}
		pause := func(knock uint32, after time.Duration) time.Duration {
			began := time.Now()
			go func() { time.Sleep(after); a.knocked(knock) }()
			v.pause(t.Context(), 5*time.Second, nil)
			return time.Since(began)
		}
		if took := pause(7, 200*time.Millisecond); took != 200*time.Millisecond {
			t.Errorf("after a knock the next attempt is made %v after the last, want 200ms", took)
		}
		if took := pause(7, 200*time.Millisecond); took != time.Second {
			t.Errorf("after a second knock the next attempt is made %v after the last, want 1s", took)
		}
		if took := pause(8, time.Second); took != 5*time.Second {
			t.Errorf("another guest's knock ends the pause after %v", took)
		}
		// While an attempt is made the guest knocks: the next one follows at once.
		a.knocked(7)
		if took := pause(8, time.Minute); took > 0 {
			t.Errorf("the next attempt is made %v after one that began before the knock", took)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		v.pause(ctx, time.Hour, nil)
	})
}

func TestAKnockHasTheLinkThereIsAsked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	e := endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: path}
	l, err := endpoint.Listen(e, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	never := make(chan struct{})
	s := &tunnel.Server{Source: func() (announce.Announcement, <-chan struct{}) {
		return announce.Announcement{Generation: 1}, never
	}}
	running.Go(func() { _ = s.Serve(ctx, l) })
	link, err := tunnel.Dial(ctx, e, tunnel.Config{})
	if err != nil {
		t.Fatal(err)
	}
	announced := make(chan struct{}, 1)
	running.Go(func() {
		_ = link.Run(ctx, func(announce.Announcement) { announced <- struct{}{} })
	})
	<-announced
	// Its first heartbeat comes after a second, and the next after twenty.
	for began := link.LastSeen(); link.LastSeen().Sub(began) < 500*time.Millisecond; {
		time.Sleep(10 * time.Millisecond)
	}
	seen := link.LastSeen()
	v := &vm{VM: VM{Endpoint: endpoint.Endpoint{Scheme: endpoint.SchemeVsock, CID: 7}}, knocks: make(chan struct{}, 1), log: slog.New(slog.DiscardHandler), link: link}
	for end := time.Now().Add(10 * time.Second); link.LastSeen().Sub(seen) < 5*time.Millisecond; time.Sleep(time.Millisecond) {
		(&Agent{vms: []*vm{v}}).knocked(7)
		if time.Now().After(end) {
			t.Fatal("the guest is not asked")
		}
	}
}

func TestASocketThatAppearsIsFollowedByAnAttempt(t *testing.T) {
	for _, scheme := range []string{endpoint.SchemeUnix, endpoint.SchemeSerial, endpoint.SchemeHybrid} {
		path := filepath.Join(t.TempDir(), "later", "agent.sock")
		v := &vm{VM: VM{Endpoint: endpoint.Endpoint{Scheme: scheme, Path: path}}, knocks: make(chan struct{}, 1)}
		pause := func(was os.FileInfo) <-chan struct{} {
			over := make(chan struct{})
			go func() { defer close(over); v.pause(t.Context(), time.Hour, was) }()
			return over
		}
		await := func(over <-chan struct{}, what string) {
			t.Helper()
			select {
			case <-over:
			case <-time.After(20 * time.Second):
				t.Fatalf("%s: %s, and no attempt follows", scheme, what)
			}
		}
		over := pause(nil)
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := endpoint.ListenSocket(path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		await(over, "the socket appears")

		// It leads nowhere, until there is another in its place.
		was, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		over = pause(was)
		if l, err = endpoint.ListenSocket(path, 0o600); err != nil {
			t.Fatal(err)
		}
		await(over, "another socket is in its place")
		l.Close()
	}
}
