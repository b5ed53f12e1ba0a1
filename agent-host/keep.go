package hostagent

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/setup"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Keeper puts back what setup added to the domains of a libvirt daemon, after another program defined them anew.
type Keeper struct {
	// Daemon is the libvirt daemon, as the setups have it.
	Daemon string
	// Setups returns what is remembered.
	Setups func() ([]setup.Record, error)
	// PutBack runs a setup on the definition that is there now, whose UUID it remembers, and says what it did.
	PutBack func(ctx context.Context, s setup.Record) (steps []string, err error)
	Log     *slog.Logger

	mu      sync.Mutex
	domains map[string]string // UUIDs by name
	done    map[string]status.Setup
	changed chan struct{}
	failed  string // why nothing is known of setups, as last logged; empty where that is known
}

// What failed is tried again: a second definition may have come in between, or somebody mends it.
const (
	putBackFirst = time.Second
	putBackLast  = 10 * time.Minute
)

// Seen takes over which domains there are. It does not wait for anything to be put back.
func (k *Keeper) Seen(s libvirt.Snapshot) {
	if s.Err != nil {
		return
	}
	domains := make(map[string]string)
	for _, d := range s.Domains {
		domains[d.Name] = d.UUID
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if maps.Equal(domains, k.domains) {
		return
	}
	k.domains = domains
	select {
	case k.wake() <- struct{}{}:
	default:
	}
}

// wake needs k.mu.
func (k *Keeper) wake() chan struct{} {
	if k.changed == nil {
		k.changed = make(chan struct{}, 1)
	}
	return k.changed
}

// Run puts back until ctx ends, and returns nil then.
func (k *Keeper) Run(ctx context.Context) error {
	k.mu.Lock()
	changed := k.wake()
	k.mu.Unlock()
	wait := putBackFirst
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			wait = putBackFirst
		case <-again:
			wait = min(2*wait, putBackLast)
		}
		if again = nil; !k.putBack(ctx) {
			again = time.After(wait)
		}
	}
}

// putBack sees to every domain that is not the one that setup was run on, and reports whether all went well.
func (k *Keeper) putBack(ctx context.Context) bool {
	all, err := k.Setups()
	if err != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		if text := err.Error(); text != k.failed {
			k.failed = text
			k.Log.Warn("what setup added is not put back when a domain is defined anew", "error", err)
		}
		return false
	}
	k.mu.Lock()
	k.failed = ""
	domains := k.domains
	maps.DeleteFunc(k.done, func(name string, _ status.Setup) bool {
		return !slices.ContainsFunc(all, func(s setup.Record) bool { return s.Daemon == k.Daemon && s.Domain == name })
	})
	k.mu.Unlock()
	well := true
	for _, s := range all {
		uuid := domains[s.Domain]
		if s.Daemon != k.Daemon || uuid == "" || uuid == s.UUID {
			continue
		}
		steps, err := k.PutBack(ctx, s)
		if ctx.Err() != nil {
			return true
		}
		well = k.note(s.Domain, uuid, steps, err) && well
	}
	return well
}

// note notes for status and log how it went, a failure that repeats itself once.
func (k *Keeper) note(domain, uuid string, steps []string, err error) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.done == nil {
		k.done = make(map[string]status.Setup)
	}
	was := k.done[domain]
	now := status.Setup{Domain: domain, Source: k.Daemon, RedefinedAt: time.Now(), Done: steps}
	if was.Error != "" {
		now.RedefinedAt = was.RedefinedAt // this is another attempt
	}
	if err != nil {
		now.Error = withHint(err)
	}
	k.done[domain] = now
	switch {
	case err == nil:
		k.Log.Info("what setup added is back in a domain that was defined anew", "vm", domain, "uuid", uuid,
			"done", cmp.Or(strings.Join(steps, "; "), "nothing was missing"))
	case now.Error != was.Error:
		k.Log.Warn("what setup added cannot be put back into a domain that was defined anew", "vm", domain, "uuid", uuid, "error", now.Error)
	}
	return err == nil
}

// withHint is an error and its remedy, if the package libvirt knows one.
func withHint(err error) string {
	if hint := libvirt.Hint(err); hint != "" {
		return err.Error() + "; " + hint
	}
	return err.Error()
}

// Status tells what was put back, or was not, by domain; without one, why it would not be.
func (k *Keeper) Status() []status.Setup {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failed != "" {
		return []status.Setup{{Source: k.Daemon, Error: k.failed}}
	}
	return slices.SortedFunc(maps.Values(k.done), func(a, b status.Setup) int { return strings.Compare(a.Domain, b.Domain) })
}
