package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/setup"
)

// setupStore is where this user's setups are remembered, beside the keys.
func setupStore() (setup.Store, error) {
	dir, err := keys.DefaultDir()
	return setup.Store{Path: filepath.Join(filepath.Dir(dir), "setups.json")}, err
}

// daemonOf is the libvirt daemon of a URI: where its socket is may differ from one time to the next.
func daemonOf(uri string) string {
	if isSession(cmp.Or(uri, libvirt.DefaultURI())) {
		return "qemu:///session"
	}
	return "qemu:///system"
}

// forget ends the putting back, and reports whether there would have been any.
func (o *setupOptions) forget(domain string) (bool, error) {
	store, err := setupStore()
	if err != nil {
		return false, err
	}
	return store.Forget(daemonOf(o.uri), domain)
}

// macsOf is the UUID that the MAC addresses of a domain's NICs came from the first time; empty for none.
func (o *setupOptions) macsOf(domain string) string {
	store, err := setupStore()
	if err != nil {
		return ""
	}
	was, _, _ := store.Find(daemonOf(o.uri), domain) // remember says what is wrong with the file
	return was.MACsOf
}

// remember remembers what setup was run with, for as long as the domain has something of it.
func (o *setupOptions) remember(plan *setup.Plan, opts setup.Options) error {
	if o.keep == keepNo || o.undo || !plan.Ours() {
		_, err := o.forget(plan.Domain)
		return err
	}
	store, err := setupStore()
	if err != nil {
		return err
	}
	daemon := daemonOf(o.uri)
	was, _, err := store.Find(daemon, plan.Domain)
	if err != nil {
		return err
	}
	return store.Put(setup.Record{
		Daemon: daemon, Domain: plan.Domain, UUID: plan.UUID, MACsOf: cmp.Or(was.MACsOf, plan.UUID), Disk: plan.Disk,
		HostOnly: opts.HostOnly, Subnet: opts.Subnet, NAT: opts.NAT, Seed: cmp.Or(opts.Seed, was.Seed), Rum: opts.Rum,
	})
}

// keeper returns what puts back what setup added to the domains at a libvirt daemon; nil for a user without a place where
// that could be remembered.
func keeper(uri string, log *slog.Logger) *hostagent.Keeper {
	store, err := setupStore()
	if err != nil {
		log.Warn("what setup added is not put back when a domain is defined anew", "error", err)
		return nil
	}
	return &hostagent.Keeper{
		Daemon: daemonOf(uri), Setups: store.List, Log: log,
		PutBack: func(ctx context.Context, s setup.Record) ([]string, error) { return putBack(ctx, uri, store, s) },
	}
}

// putBack runs a setup again, unless the domain is another VM that was given the name.
func putBack(ctx context.Context, uri string, store setup.Store, s setup.Record) (done []string, err error) {
	conn, err := libvirt.Open(ctx, uri)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if s.Seed != "" {
		if err := setup.CheckSeed(s.Seed); err != nil {
			done = append(done, "without its seed image: "+err.Error())
			s.Seed = ""
		}
	}
	plan, err := setup.NewPlan(ctx, conn, s.Domain, setup.Options{
		HostOnly: s.HostOnly, Subnet: s.Subnet, NAT: s.NAT, Seed: s.Seed, Rum: s.Rum, MACsOf: s.MACsOf,
	})
	if err != nil {
		return nil, err
	}
	if plan.Disk != s.Disk {
		return nil, fmt.Errorf("its disk is %[1]s and was %[2]s, so it may be another VM of that name: give it what it needs with "+
			"'rum-host-agent setup %[3]s', or end this with 'rum-host-agent setup %[3]s --keep no'", cmp.Or(plan.Disk, "none"), cmp.Or(s.Disk, "none"), s.Domain)
	}
	done = append(done, plan.Steps...)
	if !plan.Empty() {
		result, err := setup.Apply(ctx, conn, plan)
		if err != nil {
			return nil, err
		}
		for _, reason := range result.Restart {
			done = append(done, "after the next start only: "+reason)
		}
	}
	s.UUID = plan.UUID
	return done, store.Put(s)
}
