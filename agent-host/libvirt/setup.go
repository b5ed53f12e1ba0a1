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

// Apply carries a plan out, or changes nothing: what was done before an error is taken back. Errors wrap [ErrChanged] when
// the domain was changed since the plan was made, and [ErrRefused] when libvirt does not take a device. What only the
// running VM lacks is no error, and neither networks nor devices come back when their removal ends halfway: a new plan has
// the rest.
func (c *Conn) Apply(ctx context.Context, p *Plan) (Result, error) {
	defer c.bound(ctx, changeLimit)()
	now, err := c.definition(p.dom)
	if err != nil {
		return Result{}, err
	}
	if now != p.before {
		return Result{}, advise(fmt.Errorf("%w: %s", ErrChanged, p.Domain), "run this again")
	}
	var back rollback
	r, err := c.store(p, &back)
	if err != nil {
		return Result{}, back.after(err)
	}
	running, err := c.lv.DomainIsActive(p.dom) // it may have been started since the plan was made
	if err != nil {
		return r, fmt.Errorf("domain %s: %w", p.Domain, err)
	}
	if running == 1 {
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

// rollback takes back, last first, what was done.
type rollback []func() error

func (b *rollback) add(f func() error) { *b = append(*b, f) }

// after takes everything back and returns the error that was the reason, with what stayed all the same.
func (b rollback) after(err error) error {
	for _, f := range slices.Backward(b) {
		if left := f(); left != nil {
			err = fmt.Errorf("%w; taking back what was done: %w", err, left)
		}
	}
	return err
}

// store makes what is to outlast the running VM: first the domain's definition, because it is what libvirt may refuse.
func (c *Conn) store(p *Plan, back *rollback) (r Result, err error) {
	if p.after != p.before {
		if r.Diff, err = c.redefine(p, back); err != nil {
			return r, err
		}
	}
	for _, n := range p.networks {
		if !n.remove {
			if err := c.bringUp(n, back); err != nil {
				return r, err
			}
		}
	}
	return r, nil
}

func (c *Conn) bringUp(n networkStep, back *rollback) error {
	var ref golibvirt.Network
	var err error
	if n.define != "" {
		if ref, err = c.lv.NetworkDefineXML(n.define); err == nil {
			back.add(func() error { return c.lv.NetworkUndefine(ref) })
		}
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
		back.add(func() error { return c.lv.NetworkSetAutostart(ref, 0) })
	}
	if n.start {
		if err := c.lv.NetworkCreate(ref); err != nil {
			return fmt.Errorf("starting network %s: %w", n.name, err)
		}
		back.add(func() error { return c.lv.NetworkDestroy(ref) })
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
func (c *Conn) redefine(p *Plan, back *rollback) (diff string, err error) {
	if _, err := c.lv.DomainDefineXMLFlags(p.after, 0); err != nil {
		return "", c.explainRefusal(p, err)
	}
	back.add(func() error {
		_, err := c.lv.DomainDefineXMLFlags(p.before, 0)
		return err
	})
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
