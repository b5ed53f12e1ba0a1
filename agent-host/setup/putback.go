package setup

import (
	"cmp"
	"context"
	"fmt"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
)

// PutBack runs a setup again on the definition that is there now, and says what it did. A domain that seems to be another
// VM, which was given the name, is an error.
func (s Store) PutBack(ctx context.Context, uri string, r Record) (done []string, err error) {
	conn, err := libvirt.Open(ctx, uri)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if r.Seed != "" {
		if err := CheckSeed(r.Seed); err != nil {
			done = append(done, "without its seed image: "+err.Error())
			r.Seed = ""
		}
	}
	plan, err := NewPlan(ctx, conn, r.Domain, Options{
		HostOnly: r.HostOnly, Subnet: r.Subnet, NAT: r.NAT, Seed: r.Seed, Rum: r.Rum, MACsOf: r.MACsOf,
	})
	if err != nil {
		return nil, err
	}
	if plan.Disk != r.Disk {
		return nil, fmt.Errorf("its disk is %[1]s and was %[2]s, so it may be another VM of that name: give it what it needs with "+
			"'rum-host-agent setup %[3]s', or end this with 'rum-host-agent setup %[3]s --keep no'", cmp.Or(plan.Disk, "none"), cmp.Or(r.Disk, "none"), r.Domain)
	}
	done = append(done, plan.Steps...)
	if !plan.Empty() {
		result, err := Apply(ctx, conn, plan)
		if err != nil {
			return nil, err
		}
		for _, reason := range result.Restart {
			done = append(done, "after the next start only: "+reason)
		}
	}
	r.UUID = plan.UUID
	return done, s.Put(r)
}
