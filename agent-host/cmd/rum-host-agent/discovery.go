package main

import (
	"cmp"
	"log/slog"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
)

// usesLibvirt says whether run looks for VMs: unless it was told which, or told not to.
func (o *runOptions) usesLibvirt() bool {
	if o.libvirt == "" && len(o.vms) > 0 {
		return false
	}
	return cmp.Or(o.libvirt, libvirt.DefaultURI()) != libvirt.None
}

// discovery is what keeps the agent's VMs those that run under libvirt; nil without libvirt.
func (o *runOptions) discovery(agent *hostagent.Agent, hostOnly string, log *slog.Logger) (*hostagent.Discovery, error) {
	if !o.usesLibvirt() {
		return nil, nil
	}
	uri := cmp.Or(o.libvirt, libvirt.DefaultURI())
	if err := libvirt.CheckURI(uri); err != nil {
		return nil, &problem{err: err, hint: cmp.Or(libvirt.Hint(err), "see rum-host-agent run --help"), usage: true}
	}
	store, err := keyStore()
	if err != nil {
		return nil, err
	}
	log = log.With("libvirt", uri)
	watcher := &libvirt.Watcher{URI: uri, HostOnly: hostOnly, Log: log}
	return &hostagent.Discovery{
		Agent: agent, Source: uri, Watch: watcher.Run, Key: domainKey(store), Log: log,
	}, nil
}
