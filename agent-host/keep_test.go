package hostagent_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/setup"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// remembered is a store of setups, and a libvirt daemon that they are put back at.
type remembered struct {
	mu    sync.Mutex
	all   []setup.Record
	err   error    // of the daemon
	calls []string // domains that were put back, or not
	log   bytes.Buffer
}

func (r *remembered) list() ([]setup.Record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]setup.Record(nil), r.all...), nil
}

func (r *remembered) putBack(_ context.Context, s setup.Record) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, s.Domain)
	if r.err != nil {
		return nil, r.err
	}
	for i := range r.all {
		if r.all[i].Domain == s.Domain {
			r.all[i].UUID = "new"
		}
	}
	return []string{"add a channel"}, nil
}

func (r *remembered) called() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.calls, " ")
}

func (r *remembered) count() int { return len(strings.Fields(r.called())) }

// keep runs a keeper in a bubble and has f drive it.
func keep(t *testing.T, r *remembered, f func(k *hostagent.Keeper)) {
	synctest.Test(t, func(t *testing.T) {
		k := &hostagent.Keeper{
			Daemon: "qemu:///system", Setups: r.list, PutBack: r.putBack, Log: slog.New(slog.NewTextHandler(&r.log, nil)),
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- k.Run(ctx) }()
		f(k)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func domains(uuids ...string) (s libvirt.Snapshot) {
	for i := 0; i < len(uuids); i += 2 {
		s.Domains = append(s.Domains, libvirt.Domain{Name: uuids[i], UUID: uuids[i+1], State: libvirt.Off})
	}
	return s
}

func TestADomainThatSetupWasRunOnGetsBackWhatItHadWhenItIsDefinedAnew(t *testing.T) {
	r := &remembered{all: []setup.Record{
		{Daemon: "qemu:///system", Domain: "dev", UUID: "old"}, {Daemon: "qemu:///session", Domain: "mine", UUID: "old"},
	}}
	keep(t, r, func(k *hostagent.Keeper) {
		tell := func(s libvirt.Snapshot, want string) {
			t.Helper()
			k.Seen(s)
			synctest.Wait()
			if got := r.called(); got != want {
				t.Errorf("put back: %q, want %q", got, want)
			}
		}
		tell(domains("dev", "old", "web", "1", "mine", "2"), "")
		tell(domains("web", "1"), "") // undefined
		tell(libvirt.Snapshot{Err: errors.New("gone"), Domains: domains("dev", "new").Domains}, "")
		tell(domains("web", "1", "dev", "new"), "dev")
		tell(domains("web", "2", "dev", "new"), "dev")
		got := k.Status()
		if len(got) != 1 || got[0].Domain != "dev" || got[0].Source != "qemu:///system" || got[0].Error != "" || len(got[0].Done) != 1 || got[0].RedefinedAt.IsZero() {
			t.Errorf("%+v", got)
		}
		// What nobody wants any more is forgotten.
		r.mu.Lock()
		r.all = nil
		r.mu.Unlock()
		tell(domains("dev", "newer"), "dev")
		if got := k.Status(); len(got) != 0 {
			t.Errorf("%+v", got)
		}
	})
	if log := r.log.String(); !strings.Contains(log, "level=INFO") || !strings.Contains(log, "vm=dev") || !strings.Contains(log, "add a channel") {
		t.Errorf("the log says: %s", log)
	}
}

func TestWhatCannotBePutBackIsSaidAndTriedAgain(t *testing.T) {
	r := &remembered{
		all: []setup.Record{{Daemon: "qemu:///system", Domain: "dev", UUID: "old"}},
		err: errors.New("operation forbidden for read only access"),
	}
	keep(t, r, func(k *hostagent.Keeper) {
		k.Seen(domains("dev", "new"))
		synctest.Wait()
		first := k.Status()
		if len(first) != 1 || !strings.Contains(first[0].Error, "read only") {
			t.Errorf("%+v", first)
		}
		time.Sleep(time.Hour)
		if n := r.count(); n < 5 || n > 30 {
			t.Errorf("%d attempts in an hour", n)
		}
		r.mu.Lock()
		r.err = nil
		r.mu.Unlock()
		time.Sleep(time.Hour)
		n := r.count()
		if got := k.Status(); len(got) != 1 || got[0].Error != "" || !got[0].RedefinedAt.Equal(first[0].RedefinedAt) {
			t.Errorf("%+v", got)
		}
		time.Sleep(time.Hour)
		if r.count() != n {
			t.Error("it is put back again and again")
		}
	})
	if n := strings.Count(r.log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, r.log.String())
	}
}

func TestThatNothingCanBePutBackIsSaidBeforeItIsNeeded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "setups.json")
	if err := os.WriteFile(path, []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	k := &hostagent.Keeper{Daemon: "qemu:///system", Setups: setup.Store{Path: path}.List, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- k.Run(ctx) }()
	until := func(what string, ok func([]status.Setup) bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !ok(k.Status()); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v", what, k.Status())
			}
		}
	}
	k.Seen(domains("dev", "new"))
	until("it is said", func(got []status.Setup) bool {
		return len(got) == 1 && got[0].Domain == "" && strings.Contains(got[0].Error, path+" is damaged") && strings.Contains(got[0].Error, "run rum-host-agent setup again")
	})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	until("it is mended", func(got []status.Setup) bool { return len(got) == 0 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
