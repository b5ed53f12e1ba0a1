package setup

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"libvirt.org/go/libvirtxml"
)

// seedAlias marks the disk that setup added for a seed image.
const seedAlias = libvirt.AliasPrefix + "seed"

// planSeed sees to a disk with the seed image. A drive that has it already stays as it is, whoever added it; labelOf says
// which label the volume in another has.
func planSeed(p *Plan, def *libvirt.Definition, opts Options, labelOf func(libvirt.DiskDef) string) error {
	disks := def.Disks
	if opts.Seed == "" || slices.ContainsFunc(disks, func(d libvirt.DiskDef) bool { return d.Source.File == opts.Seed }) {
		return nil
	}
	for _, d := range disks {
		if d.Alias.Name != seedAlias && strings.EqualFold(labelOf(d), seedLabel) {
			return libvirt.Advise(fmt.Errorf("domain %s: %w: disk %s with %s", p.Domain, ErrSecondSeed, d.Target.Dev, d.Source.Name()),
				fmt.Sprintf("cloud-init reads one of them only: give the user-data of that one to rum-host-agent cloudinit --user-data, "+
					"and detach it with: virsh detach-disk %s %s --config", p.Domain, d.Target.Dev))
		}
	}
	ours := slices.IndexFunc(disks, func(d libvirt.DiskDef) bool { return d.Alias.Name == seedAlias })
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
func freeDrive(def *libvirt.Definition) (string, error) {
	for letter := 'a'; letter <= 'z'; letter++ {
		dev := "vd" + string(letter)
		taken := func(d libvirt.DiskDef) bool { return d.Target.Dev == dev }
		if !slices.ContainsFunc(def.Disks, taken) {
			return dev, nil
		}
	}
	return "", libvirt.Advise(errors.New("all virtio disks from vda to vdz are taken"), "remove one that is not needed, or attach the seed image by hand")
}

// labelOf returns the label of the volume on a disk of the domain, which the daemon reads, because its user may not; empty
// where it has none or cannot be read.
func labelOf(c *libvirt.Conn, dom golibvirt.Domain, d libvirt.DiskDef) string {
	// In any other format the volume is not at the beginning of the file.
	if d.Source.Name() == "" || d.Driver.Type != "" && d.Driver.Type != "raw" {
		return ""
	}
	label, err := volumeLabel(&diskReader{c, dom, d.Target.Dev})
	if err != nil {
		return ""
	}
	return label
}

// diskReader reads what is on a disk of a domain.
type diskReader struct {
	conn *libvirt.Conn
	dom  golibvirt.Domain
	dev  string
}

func (r *diskReader) ReadAt(b []byte, at int64) (int, error) {
	data, err := r.conn.Client().DomainBlockPeek(r.dom, r.dev, uint64(at), uint32(len(b)), 0)
	if err != nil {
		return 0, err
	}
	n := copy(b, data)
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
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
