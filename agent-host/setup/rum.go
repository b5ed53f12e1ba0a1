package setup

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
)

// How rum names what it makes, as read of its public source in April 2026: the work directory of a VM, which has the
// disks, and a VM's own networks.
var (
	rumWorkDir = regexp.MustCompile(`^[0-9a-f]{8}(-[A-Za-z0-9][A-Za-z0-9._-]*)?$`)
	rumDisk    = regexp.MustCompile(`^(overlay\.qcow2|seed-.+\.iso|drive-.+\.qcow2)$`)
	rumNetwork = regexp.MustCompile(`^rum-[0-9a-f]{8}-.+$`)
)

// madeByRum reports whether a domain has what rum gives to its domains and nobody else does.
func madeByRum(d *libvirt.Definition) bool {
	return slices.ContainsFunc(d.Disks, func(disk libvirt.DiskDef) bool {
		dir, file := filepath.Split(disk.Source.File)
		return rumDisk.MatchString(file) && rumWorkDir.MatchString(filepath.Base(dir))
	}) || slices.ContainsFunc(d.Interfaces, func(i libvirt.InterfaceDef) bool { return rumNetwork.MatchString(i.Source.Network) })
}

// planForRum sees to a domain of rum's: rum gave it vsock and networks, and defines it anew when it likes.
func planForRum(p *Plan, def *libvirt.Definition, opts Options) error {
	if err := refuseSeed(p.Domain, opts); err != nil {
		return err
	}
	before := len(p.attach)
	if err := planAgent(p, def, opts); err != nil {
		return err
	}
	if len(p.attach) == before {
		p.Notes = append(p.Notes, "the domain has all that it needs: bring the agent in with 'rum-host-agent install "+p.Domain+"'")
	} else {
		p.Notes = append(p.Notes, "rum made the domain, and takes this away when it defines it anew")
	}
	return nil
}

// refuseSeed refuses a seed beside that of rum. cloud-init reads one of them only, and what rum runs at the first boot
// mounts its own by the label.
func refuseSeed(domain string, opts Options) error {
	if opts.Seed == "" {
		return nil
	}
	return libvirt.Advise(fmt.Errorf("domain %s: %w: that of rum, which made the domain", domain, ErrSecondSeed), "bring the agent in without a seed: rum-host-agent install "+domain)
}
