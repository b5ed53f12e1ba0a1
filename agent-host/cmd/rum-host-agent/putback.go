package main

import (
	"cmp"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/setup"
	"github.com/rum-vm/rum-agent/agent-host/sources"
)

// forget ends the putting back, and reports whether there would have been any.
func (o *setupOptions) forget(domain string) (bool, error) {
	store, err := sources.Setups()
	if err != nil {
		return false, err
	}
	return store.Forget(libvirt.DaemonOf(o.uri), domain)
}

// macsOf is the UUID that the MAC addresses of a domain's NICs came from the first time; empty for none.
func (o *setupOptions) macsOf(domain string) string {
	store, err := sources.Setups()
	if err != nil {
		return ""
	}
	was, _, _ := store.Find(libvirt.DaemonOf(o.uri), domain) // remember says what is wrong with the file
	return was.MACsOf
}

// remember remembers what setup was run with, for as long as the domain has something of it.
func (o *setupOptions) remember(plan *setup.Plan, opts setup.Options) error {
	if o.keep == keepNo || o.undo || !plan.Ours() {
		_, err := o.forget(plan.Domain)
		return err
	}
	store, err := sources.Setups()
	if err != nil {
		return err
	}
	daemon := libvirt.DaemonOf(o.uri)
	was, _, err := store.Find(daemon, plan.Domain)
	if err != nil {
		return err
	}
	return store.Put(setup.Record{
		Daemon: daemon, Domain: plan.Domain, UUID: plan.UUID, MACsOf: cmp.Or(was.MACsOf, plan.UUID), Disk: plan.Disk,
		HostOnly: opts.HostOnly, Subnet: opts.Subnet, NAT: opts.NAT, Seed: cmp.Or(opts.Seed, was.Seed), Rum: opts.Rum,
	})
}
