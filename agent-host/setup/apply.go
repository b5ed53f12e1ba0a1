package setup

import (
	"context"
	"fmt"
	"slices"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
)

const (
	planLimit   = 20 * time.Second
	changeLimit = 2 * time.Minute // device hot-plug waits for QEMU
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
func Apply(ctx context.Context, c *libvirt.Conn, p *Plan) (Result, error) {
	defer c.Bound(ctx, changeLimit)()
	now, err := definition(c, p.dom)
	if err != nil {
		return Result{}, err
	}
	if now != p.before {
		return Result{}, libvirt.Advise(fmt.Errorf("%w: %s", ErrChanged, p.Domain), "run this again")
	}
	var back rollback
	r, err := store(c, p, &back)
	if err != nil {
		return Result{}, back.after(err)
	}
	running, err := c.Client().DomainIsActive(p.dom) // it may have been started since the plan was made
	if err != nil {
		return r, fmt.Errorf("domain %s: %w", p.Domain, err)
	}
	if running == 1 {
		r.Restart = changeLive(c, p)
	}
	for _, n := range p.networks {
		if n.remove {
			if err := takeDown(c, n.name); err != nil {
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
func store(c *libvirt.Conn, p *Plan, back *rollback) (r Result, err error) {
	if p.after != p.before {
		if r.Diff, err = redefine(c, p, back); err != nil {
			return r, err
		}
	}
	for _, n := range p.networks {
		if !n.remove {
			if err := bringUp(c, n, back); err != nil {
				return r, err
			}
		}
	}
	return r, nil
}

func bringUp(c *libvirt.Conn, n networkStep, back *rollback) error {
	var ref golibvirt.Network
	var err error
	if n.define != "" {
		if ref, err = c.Client().NetworkDefineXML(n.define); err == nil {
			back.add(func() error { return c.Client().NetworkUndefine(ref) })
		}
	} else {
		ref, err = c.Client().NetworkLookupByName(n.name)
	}
	if err != nil {
		return fmt.Errorf("defining network %s: %w", n.name, err)
	}
	if n.autostart {
		if err := c.Client().NetworkSetAutostart(ref, 1); err != nil {
			return fmt.Errorf("network %s: setting autostart: %w", n.name, err)
		}
		back.add(func() error { return c.Client().NetworkSetAutostart(ref, 0) })
	}
	if n.start {
		if err := c.Client().NetworkCreate(ref); err != nil {
			return fmt.Errorf("starting network %s: %w", n.name, err)
		}
		back.add(func() error { return c.Client().NetworkDestroy(ref) })
	}
	return nil
}

func takeDown(c *libvirt.Conn, name string) error {
	ref, err := c.Client().NetworkLookupByName(name)
	if err != nil {
		return fmt.Errorf("network %s: %w", name, err)
	}
	active, err := c.Client().NetworkIsActive(ref)
	if err == nil && active == 1 {
		err = c.Client().NetworkDestroy(ref)
	}
	if err == nil {
		err = c.Client().NetworkUndefine(ref)
	}
	if err != nil {
		return fmt.Errorf("removing network %s: %w", name, err)
	}
	return nil
}

// redefine stores the planned definition, and notes what libvirt changed for it beside the devices.
func redefine(c *libvirt.Conn, p *Plan, back *rollback) (diff string, err error) {
	if _, err := c.Client().DomainDefineXMLFlags(p.after, 0); err != nil {
		return "", explainRefusal(c, p, err)
	}
	back.add(func() error {
		_, err := c.Client().DomainDefineXMLFlags(p.before, 0)
		return err
	})
	stored, err := definition(c, p.dom)
	if err != nil {
		return "", err
	}
	if len(p.attach) > 0 {
		note, err := noteOf(p.before, stored)
		if err != nil {
			return "", fmt.Errorf("domain %s: %w", p.Domain, err)
		}
		if note != "" {
			err := c.Client().DomainSetMetadata(p.dom, int32(golibvirt.DomainMetadataElement), golibvirt.OptString{note},
				golibvirt.OptString{"rum"}, golibvirt.OptString{libvirt.SetupNamespace}, golibvirt.DomainAffectConfig)
			if err != nil {
				return "", fmt.Errorf("domain %s: noting what was added: %w", p.Domain, err)
			}
			if stored, err = definition(c, p.dom); err != nil {
				return "", err
			}
		}
	}
	return diffText("domain "+p.Domain, p.before, stored), nil
}

// changeLive plugs the devices into the running VM, or out of it, and says what did not work.
func changeLive(c *libvirt.Conn, p *Plan) (restart []string) {
	for _, d := range p.attach {
		if err := c.Client().DomainAttachDeviceFlags(p.dom, d.xml, uint32(golibvirt.DomainAffectLive)); err != nil {
			restart = append(restart, fmt.Sprintf("%s: %v", d.what, err))
		}
	}
	for _, d := range p.update {
		if err := c.Client().DomainUpdateDeviceFlags(p.dom, d.xml, golibvirt.DomainDeviceModifyFlags(golibvirt.DomainAffectLive)); err != nil {
			restart = append(restart, fmt.Sprintf("%s: %v", d.what, err))
		}
	}
	if len(p.detach) == 0 {
		return restart
	}
	live, err := c.Client().DomainGetXMLDesc(p.dom, 0)
	if err != nil {
		return append(restart, err.Error())
	}
	for _, alias := range p.detach {
		if err := c.Client().DomainDetachDeviceAlias(p.dom, alias, uint32(golibvirt.DomainAffectLive)); err != nil && hasAlias(live, alias) {
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
