package setup

import (
	"errors"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
)

// rumDomain has the elements that rum generates.
const rumDomain = `<domain type='kvm'>
  <name>shop</name>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/home/me/.local/share/rum/0123abcd-shop/overlay.qcow2'/><target dev='vda' bus='virtio'/></disk>
    <disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='/home/me/.local/share/rum/0123abcd-shop/seed-77aa.iso'/><target dev='sda' bus='sata'/><readonly/></disk>
    <interface type='network'><source network='default'/><model type='virtio'/></interface>
    <interface type='network'><source network='rum-0123abcd-hostonly'/><model type='virtio'/></interface>
    <vsock model='virtio'><cid auto='yes'/></vsock>
  </devices>
</domain>`

func TestADomainOfRumsNeedsNothingAndTakesNoSeed(t *testing.T) {
	with := func() bool { return true }
	for name, text := range map[string]string{
		"whole":                rumDomain,
		"known by its disks":   strings.ReplaceAll(rumDomain, "rum-0123abcd-hostonly", "lab"),
		"known by its network": strings.ReplaceAll(rumDomain, "/home/me/.local/share/rum/0123abcd-shop/", "/images/"),
	} {
		def, err := libvirt.ParseDefinition(text)
		if err != nil || !madeByRum(def) {
			t.Errorf("%s: %v", name, err)
		}
		p := &Plan{Domain: "shop"}
		if err := planForRum(p, def, Options{HostOnly: "rum-hostonly", NAT: "default", HostHasVsock: with}); err != nil || len(p.attach) > 0 {
			t.Errorf("%s: %v, %+v", name, err, p.attach)
		}
		if notes := strings.Join(p.Notes, "\n"); !strings.Contains(notes, "rum-host-agent install shop") {
			t.Errorf("%s: %s", name, notes)
		}
		err = planForRum(&Plan{Domain: "shop"}, def, Options{Seed: "/seed.iso", HostHasVsock: with})
		if !errors.Is(err, ErrSecondSeed) || libvirt.Hint(err) != "bring the agent in without a seed: rum-host-agent install shop" {
			t.Errorf("%s: %v; %s", name, err, libvirt.Hint(err))
		}
	}
	for _, other := range []string{
		"<domain><devices><disk><source file='/var/lib/libvirt/images/overlay.qcow2'/></disk></devices></domain>",
		"<domain><devices><disk><source file='/0123abcd/disk.qcow2'/></disk></devices></domain>",
		"<domain><devices><interface><source network='rum-hostonly'/></interface></devices></domain>",
	} {
		if def, err := libvirt.ParseDefinition(other); err != nil || madeByRum(def) {
			t.Errorf("taken for rum's: %s, %v", other, err)
		}
	}
}
