package libvirt

import (
	"errors"
	"fmt"
	"slices"

	"libvirt.org/go/libvirtxml"
)

// seedAlias marks the disk that setup added for a seed image.
const seedAlias = aliasPrefix + "seed"

// planSeed sees to a disk with the seed image. A drive that has it already stays as it is, whoever added it.
func planSeed(p *Plan, def *domainDef, opts SetupOptions) error {
	disks := def.Disks
	if opts.Seed == "" || slices.ContainsFunc(disks, func(d diskDef) bool { return d.Source.File == opts.Seed }) {
		return nil
	}
	ours := slices.IndexFunc(disks, func(d diskDef) bool { return d.Alias.Name == seedAlias })
	if ours >= 0 && disks[ours].Target.Dev != "" {
		d, err := seedDevice(opts.Seed, disks[ours].Target.Dev)
		p.update = append(p.update, d)
		return err
	}
	dev, err := freeDrive(def)
	if err != nil {
		return fmt.Errorf("domain %s: %w", p.Domain, err)
	}
	d, err := seedDevice(opts.Seed, dev)
	p.attach = append(p.attach, d)
	return err
}

func seedDevice(file string, dev string) (device, error) {
	d, err := newDevice("disk", fmt.Sprintf("read-only disk %s with %s", dev, file), &libvirtxml.DomainDisk{
		Device:   "disk",
		Driver:   &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw"},
		Source:   &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: file}},
		Target:   &libvirtxml.DomainDiskTarget{Dev: dev, Bus: "virtio"},
		ReadOnly: &libvirtxml.DomainDiskReadOnly{},
		Alias:    &libvirtxml.DomainAlias{Name: seedAlias},
	})
	d.alias = seedAlias
	return d, err
}

// freeDrive returns the name of one more virtio disk. It is no CD-ROM drive, because the kernels of cloud images, such as
// Debian's, leave out SATA, which is where a CD-ROM drive of machine type q35 would be.
func freeDrive(def *domainDef) (string, error) {
	for letter := 'a'; letter <= 'z'; letter++ {
		dev := "vd" + string(letter)
		taken := func(d diskDef) bool { return d.Target.Dev == dev }
		if !slices.ContainsFunc(def.Disks, taken) {
			return dev, nil
		}
	}
	return "", advise(errors.New("all virtio disks from vda to vdz are taken"), "remove one that is not needed, or attach the seed image by hand")
}

// replaceDevices returns a domain definition where each device takes the place of the one with its alias.
func replaceDevices(text string, devices []device) (string, error) {
	if len(devices) == 0 {
		return text, nil
	}
	root, err := parseText(text)
	if err != nil {
		return "", err
	}
	list := root.child("devices")
	var edits []splice
	for _, d := range devices {
		i := slices.IndexFunc(list.children, func(e *element) bool { return e.child("alias").attr("name") == d.alias })
		if i < 0 {
			return "", fmt.Errorf("the domain definition has no device %s", d.alias)
		}
		was := list.children[i]
		edits = append(edits, splice{was.start, was.end, indentAs(text, was, d.xml)})
	}
	return apply(text, edits), nil
}
