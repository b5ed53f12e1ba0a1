package sources

import (
	"fmt"
	"log/slog"
	"slices"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/remote"
	"github.com/rum-vm/rum-agent/agent-host/remote/address"
)

// Hosts are the other hosts of the command line, by --host and by --libvirt, and those of the file that this does not
// name.
func Hosts(flags []string, uri string, ofFile []address.Address, version string, log *slog.Logger) ([]*remote.Host, error) {
	var all []address.Address
	for _, text := range flags {
		a, err := address.Parse(text)
		if err != nil {
			return nil, output.Misuse(fmt.Errorf("--host %w", err))
		}
		all = append(all, a)
	}
	if a, is, err := address.ParseLibvirt(uri); err != nil {
		return nil, output.Misuse(fmt.Errorf("--libvirt: %w", err))
	} else if is {
		all = append(all, a)
	}
	for i, a := range all {
		if named(all[:i], a.Name()) {
			return nil, output.Misuse(output.Advise(fmt.Errorf("two hosts are called %s", a.Name()), "give one of them a name of its own in ~/.ssh/config"))
		}
	}
	for _, a := range ofFile {
		if !named(all, a.Name()) {
			all = append(all, a)
		}
	}
	var hosts []*remote.Host
	for _, a := range all {
		// What the host and its VMs have logged has one bound.
		hosts = append(hosts, &remote.Host{Address: a, Version: version, Log: log.With("vm", a.Name()+"/")})
	}
	return hosts, nil
}

func named(all []address.Address, name string) bool {
	return slices.ContainsFunc(all, func(a address.Address) bool { return a.Name() == name })
}

// AtHosts keep the agent's VMs those of other hosts.
func AtHosts(agent *hostagent.Agent, hosts []*remote.Host, log *slog.Logger) ([]*hostagent.Discovery, error) {
	if len(hosts) == 0 {
		return nil, nil
	}
	store, err := keys.Default()
	if err != nil {
		return nil, err
	}
	var all []*hostagent.Discovery
	for _, h := range hosts {
		all = append(all, &hostagent.Discovery{Agent: agent, Source: h.Address.Source(), Watch: h.Run, Key: store.ForDomain, Bind: store.BindUnbound, Remote: h, Log: log})
	}
	return all, nil
}
