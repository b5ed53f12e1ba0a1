package libvirt

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"libvirt.org/go/libvirtxml"
)

// seedAlias marks the CD-ROM drive that setup added for a seed image.
const seedAlias = aliasPrefix + "seed"

// planSeed sees to a drive with the seed image. A drive that has it already stays as it is, whoever added it.
func planSeed(p *Plan, def *libvirtxml.Domain, opts SetupOptions) error {
	disks := def.Devices.Disks
	if opts.Seed == "" || slices.ContainsFunc(disks, func(d libvirtxml.DomainDisk) bool { return imageOf(&d) == opts.Seed }) {
		return nil
	}
	ours := slices.IndexFunc(disks, func(d libvirtxml.DomainDisk) bool { return d.Alias != nil && d.Alias.Name == seedAlias })
	if ours >= 0 && disks[ours].Target != nil {
		d, err := seedDevice(opts.Seed, *disks[ours].Target)
		p.update = append(p.update, d)
		return err
	}
	target, err := freeDrive(def)
	if err != nil {
		return fmt.Errorf("domain %s: %w", p.Domain, err)
	}
	d, err := seedDevice(opts.Seed, target)
	p.attach = append(p.attach, d)
	return err
}

// imageOf returns the file that is in a drive; empty for none and for what is no file.
func imageOf(d *libvirtxml.DomainDisk) string {
	if d.Source == nil || d.Source.File == nil {
		return ""
	}
	return d.Source.File.File
}

func seedDevice(file string, target libvirtxml.DomainDiskTarget) (device, error) {
	d, err := newDevice("disk", fmt.Sprintf("CD-ROM drive %s with %s", target.Dev, file), &libvirtxml.DomainDisk{
		Device:   "cdrom",
		Driver:   &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw"},
		Source:   &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: file}},
		Target:   &libvirtxml.DomainDiskTarget{Dev: target.Dev, Bus: target.Bus},
		ReadOnly: &libvirtxml.DomainDiskReadOnly{},
		Alias:    &libvirtxml.DomainAlias{Name: seedAlias},
	})
	d.alias = seedAlias
	return d, err
}

// freeDrive returns a place for one more CD-ROM drive, on the bus that guests of this machine type read from without
// further drivers: SATA and IDE are built into the PC types, and the others have neither.
func freeDrive(def *libvirtxml.Domain) (libvirtxml.DomainDiskTarget, error) {
	machine := ""
	if def.OS != nil && def.OS.Type != nil {
		machine = def.OS.Type.Machine
	}
	bus, prefix, count := "scsi", "sd", 26
	switch {
	case strings.Contains(machine, "q35"):
		bus = "sata"
	case strings.HasPrefix(machine, "pc"):
		bus, prefix, count = "ide", "hd", 4 // two channels of two drives
	}
	for i := range count {
		dev := prefix + string(rune('a'+i))
		taken := func(d libvirtxml.DomainDisk) bool { return d.Target != nil && d.Target.Dev == dev }
		if !slices.ContainsFunc(def.Devices.Disks, taken) {
			return libvirtxml.DomainDiskTarget{Dev: dev, Bus: bus}, nil
		}
	}
	return libvirtxml.DomainDiskTarget{}, advise(fmt.Errorf("all %d %s drives of machine type %s are taken", count, strings.ToUpper(bus), cmp.Or(machine, "?")),
		"remove a CD-ROM drive that is not needed, or attach the seed image to one by hand")
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
