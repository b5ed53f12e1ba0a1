package libvirt

import (
	"context"
	"fmt"
	"slices"

	golibvirt "github.com/digitalocean/go-libvirt"
)

// Result is what a plan came to.
type Result struct {
	// Diff is the change as libvirt stored it, with the addresses and controllers that it added.
	Diff string
	// Restart says for each device why the running VM does not have it, or still has it, until it is shut down and
	// started again; empty when the VM is off or has everything.
	Restart []string
}

// Apply carries a plan out. It fails with [ErrChanged] and changes nothing when the domain was changed since the plan
// was made. When it fails later, what is done stays, and a new plan has the rest.
func (c *Conn) Apply(ctx context.Context, p *Plan) (Result, error) {
	defer c.bound(ctx, changeLimit)()
	now, err := c.definition(p.dom)
	if err != nil {
		return Result{}, err
	}
	if now != p.before {
		return Result{}, advise(fmt.Errorf("%w: %s", ErrChanged, p.Domain), "run this again")
	}
	for _, n := range p.networks {
		if !n.remove {
			if err := c.bringUp(n); err != nil {
				return Result{}, err
			}
		}
	}
	var r Result
	if p.after != p.before {
		if r.Diff, err = c.redefine(p); err != nil {
			return r, err
		}
	}
	if p.running {
		r.Restart = c.changeLive(p)
	}
	for _, n := range p.networks {
		if n.remove {
			if err := c.takeDown(n.name); err != nil {
				return r, err
			}
		}
	}
	return r, nil
}

func (c *Conn) bringUp(n networkStep) error {
	var ref golibvirt.Network
	var err error
	if n.define != "" {
		ref, err = c.lv.NetworkDefineXML(n.define)
	} else {
		ref, err = c.lv.NetworkLookupByName(n.name)
	}
	if err != nil {
		return fmt.Errorf("defining network %s: %w", n.name, err)
	}
	if n.autostart {
		if err := c.lv.NetworkSetAutostart(ref, 1); err != nil {
			return fmt.Errorf("network %s: setting autostart: %w", n.name, err)
		}
	}
	if n.start {
		if err := c.lv.NetworkCreate(ref); err != nil {
			return fmt.Errorf("starting network %s: %w", n.name, err)
		}
	}
	return nil
}

func (c *Conn) takeDown(name string) error {
	ref, err := c.lv.NetworkLookupByName(name)
	if err != nil {
		return fmt.Errorf("network %s: %w", name, err)
	}
	active, err := c.lv.NetworkIsActive(ref)
	if err == nil && active == 1 {
		err = c.lv.NetworkDestroy(ref)
	}
	if err == nil {
		err = c.lv.NetworkUndefine(ref)
	}
	if err != nil {
		return fmt.Errorf("removing network %s: %w", name, err)
	}
	return nil
}

// redefine stores the planned definition, and notes what libvirt changed for it beside the devices.
func (c *Conn) redefine(p *Plan) (diff string, err error) {
	if _, err := c.lv.DomainDefineXMLFlags(p.after, 0); err != nil {
		return "", fmt.Errorf("storing the definition of domain %s: %w", p.Domain, err)
	}
	stored, err := c.definition(p.dom)
	if err != nil {
		return "", err
	}
	if len(p.attach) > 0 {
		note, err := noteOf(p.before, stored)
		if err != nil {
			return "", fmt.Errorf("domain %s: %w", p.Domain, err)
		}
		if note != "" {
			err := c.lv.DomainSetMetadata(p.dom, int32(golibvirt.DomainMetadataElement), golibvirt.OptString{note},
				golibvirt.OptString{"rum"}, golibvirt.OptString{setupNS}, golibvirt.DomainAffectConfig)
			if err != nil {
				return "", fmt.Errorf("domain %s: noting what was added: %w", p.Domain, err)
			}
			if stored, err = c.definition(p.dom); err != nil {
				return "", err
			}
		}
	}
	return diffText("domain "+p.Domain, p.before, stored), nil
}

// changeLive plugs the devices into the running VM, or out of it, and says what did not work.
func (c *Conn) changeLive(p *Plan) (restart []string) {
	for _, d := range p.attach {
		if err := c.lv.DomainAttachDeviceFlags(p.dom, d.xml, uint32(golibvirt.DomainAffectLive)); err != nil {
			restart = append(restart, fmt.Sprintf("%s: %v", d.what, err))
		}
	}
	for _, d := range p.update {
		if err := c.lv.DomainUpdateDeviceFlags(p.dom, d.xml, golibvirt.DomainDeviceModifyFlags(golibvirt.DomainAffectLive)); err != nil {
			restart = append(restart, fmt.Sprintf("%s: %v", d.what, err))
		}
	}
	if len(p.detach) == 0 {
		return restart
	}
	live, err := c.lv.DomainGetXMLDesc(p.dom, 0)
	if err != nil {
		return append(restart, err.Error())
	}
	for _, alias := range p.detach {
		if err := c.lv.DomainDetachDeviceAlias(p.dom, alias, uint32(golibvirt.DomainAffectLive)); err != nil && hasAlias(live, alias) {
			restart = append(restart, fmt.Sprintf("%s: %v", alias, err))
		}
	}
	return restart
}

func hasAlias(text, alias string) bool {
	root, err := parseText(text)
	if err != nil {
		return false
	}
	devices := root.child("devices")
	return devices != nil && slices.ContainsFunc(devices.children, func(e *element) bool {
		return e.child("alias").attr("name") == alias
	})
}
