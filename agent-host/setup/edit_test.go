package setup

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/test/domains"
)

func allDevices(t testing.TB) []device {
	t.Helper()
	var devices []device
	add := func(d device, err error) {
		if err != nil {
			t.Fatal(err)
		}
		devices = append(devices, d)
	}
	add(nicDevice("nat", "default", "52:54:00:01:02:03"))
	add(nicDevice("hostonly", "rum-hostonly", "52:54:00:01:02:04"))
	add(vsockDeviceXML())
	add(channelDevice())
	add(seedDevice("/var/lib/libvirt/images/dev's <seed> & key.iso", "vdb"))
	return devices
}

func TestEverythingElseInADefinitionStaysByteForByte(t *testing.T) {
	for name, text := range domains.All(t) {
		t.Run(name, func(t *testing.T) {
			after, err := insertDevices(text, allDevices(t))
			if err != nil {
				t.Fatal(err)
			}
			// Without what was inserted, the old text is left: cut out by text alone, not by the code under test.
			rest := after
			for _, d := range allDevices(t) {
				kind := "<" + d.kind
				end := "</" + d.kind + ">"
				alias := d.xml[strings.Index(d.xml, "<alias"):]
				alias = alias[:strings.Index(alias, "/>")]
				at := strings.Index(rest, alias)
				from, to := strings.LastIndex(rest[:at], kind), at+strings.Index(rest[at:], end)+len(end)
				from = len(strings.TrimRight(rest[:from], " \t\n"))
				rest = rest[:from] + rest[to:]
			}
			if diff := cmp.Diff(text, rest); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestUndoGivesBackTheBytes(t *testing.T) {
	for name, text := range domains.All(t) {
		t.Run(name, func(t *testing.T) {
			after, err := insertDevices(text, allDevices(t))
			if err != nil {
				t.Fatal(err)
			}
			back, aliases, err := removeAdded(after)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(text, back); diff != "" {
				t.Error(diff)
			}
			if len(aliases) != len(allDevices(t)) {
				t.Errorf("removed %q", aliases)
			}
			again, none, err := removeAdded(text)
			if err != nil || again != text || len(none) != 0 {
				t.Errorf("a definition without our devices changed: %q, %v", none, err)
			}
		})
	}
}

func TestDevicesComeBehindTheirKind(t *testing.T) {
	text := domains.All(t)["virt-manager.xml"]
	after, err := insertDevices(text, allDevices(t))
	if err != nil {
		t.Fatal(err)
	}
	want := `    <interface type="network">
      <mac address="52:54:00:e3:9c:02"/>
      <source network="rum-hostonly"/>
      <model type="virtio"/>
    </interface>
    <interface type='network'>
      <mac address='52:54:00:01:02:03'/>
      <source network='default'/>
      <model type='virtio'/>
      <alias name='ua-rum-nat'/>
    </interface>
    <interface type='network'>
      <mac address='52:54:00:01:02:04'/>
      <source network='rum-hostonly'/>
      <model type='virtio'/>
      <alias name='ua-rum-hostonly'/>
    </interface>
    <channel type="spicevmc">
`
	if !strings.Contains(after, want) {
		t.Errorf("got:\n%s", after)
	}
	want = `    <watchdog model="itco" action="reset"/>
    <vsock model='virtio'>
      <cid auto='yes'/>
      <alias name='ua-rum-vsock'/>
    </vsock>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='/var/lib/libvirt/images/dev&#39;s &lt;seed&gt; &amp; key.iso'/>
      <target dev='vdb' bus='virtio'/>
      <readonly/>
      <alias name='ua-rum-seed'/>
    </disk>
  </devices>
`
	if !strings.Contains(after, want) {
		t.Errorf("got:\n%s", after)
	}
}

func TestNotedControllersGoWhenNothingUsesThem(t *testing.T) {
	const text = `<domain>
  <metadata>
    <mine:x xmlns:mine='urn:mine'/>
    <rum:setup xmlns:rum='https://github.com/rum-vm/rum-agent/setup/1'>
      <rum:controller type='virtio-serial' index='0'/>
      <rum:controller type='pci' index='4'/>
      <rum:controller type='pci' index='5'/>
    </rum:setup>
  </metadata>
  <devices>
    <controller type='virtio-serial' index='0'>
      <address type='pci' bus='0x05' slot='0x00'/>
    </controller>
    <controller type='pci' index='3' model='pcie-root-port'/>
    <controller type='pci' index='4' model='pcie-root-port'/>
    <controller type='pci' index='5' model='pcie-root-port'/>USER
    <channel type='unix'>
      <alias name='ua-rum-channel'/>
      <address type='virtio-serial' controller='0' bus='0' port='1'/>
    </channel>
  </devices>
</domain>`
	tests := []struct{ name, user, stays string }{
		{"all go", "", ""},
		{"a channel of the user's keeps the serial controller and its port",
			"\n    <channel type='pty'><address type='virtio-serial' controller='0'/></channel>",
			"virtio-serial/0 pci/4 pci/5"},
		{"a disk keeps its port and those below",
			"\n    <disk><address type='pci' bus='0x05' slot='0x00'/></disk>", "pci/4 pci/5"},
		{"a disk on the lower port", "\n    <disk><address type='pci' bus='0x04'/></disk>", "pci/4"},
		{"a port of the user's above", "\n    <controller type='pci' index='6' model='pcie-root-port'/>", "pci/4 pci/5 pci/6"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			after, _, err := removeAdded(strings.Replace(text, "USER", tt.user, 1))
			if err != nil {
				t.Fatal(err)
			}
			root, err := parseText(after)
			if err != nil {
				t.Fatal(err)
			}
			var stays []string
			for _, c := range controllers(root) {
				stays = append(stays, c.kind+"/"+c.index)
			}
			want := strings.Fields(tt.stays + " pci/3")
			if diff := cmp.Diff(len(want), len(stays)); diff != "" {
				t.Errorf("stays %q, want %q", stays, want)
			}
			for _, w := range want {
				if !strings.Contains(strings.Join(stays, " "), w) {
					t.Errorf("%s went; left are %q", w, stays)
				}
			}
			if !strings.Contains(after, "mine:x") || strings.Contains(after, "rum:setup") {
				t.Errorf("metadata is wrong:\n%s", after)
			}
		})
	}
}

// TestADeviceBesideOursIsAloneAgain: libvirt writes multifunction='on' on a device of the user's when it puts a port of
// ours into the same slot.
func TestADeviceBesideOursIsAloneAgain(t *testing.T) {
	const before = `<domain>
  <devices>
    <controller type='pci' index='1' model='pcie-root-port'>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x01' function='0x0'/>
    </controller>
    <controller type='pci' index='2' model='pcie-root-port'>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x02' function='0x0' multifunction='on'/>
    </controller>
  </devices>
</domain>`
	const port = `
    <controller type='pci' index='3' model='pcie-root-port'>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x01' function='0x1'/>
    </controller>`
	const mine = `
    <interface><address type='pci' domain='0x0000' bus='0x00' slot='0x01' function='0x2'/></interface>`
	on := strings.Replace(before, "slot='0x01' function='0x0'/>", "slot='0x01' function='0x0' multifunction='on'/>", 1)
	withPort := strings.Replace(on, "\n  </devices>", port+"\n  </devices>", 1)
	text, err := noteOf(before, withPort)
	if err != nil {
		t.Fatal(err)
	}
	note := "\n  <metadata>" + strings.Replace(text, "<setup>", "<setup xmlns='"+libvirt.SetupNamespace+"'>", 1) + "</metadata>"
	withNote := func(s string) string { return strings.Replace(s, "<domain>", "<domain>"+note, 1) }
	if back, _, err := removeAdded(withNote(withPort)); err != nil || back != before {
		t.Errorf("%v\n%s", err, cmp.Diff(before, back))
	}
	// A second setup keeps what the first one noted.
	if again, err := noteOf(withNote(withPort), withNote(withPort)); err != nil || again != text {
		t.Errorf("%v: %s", err, again)
	}
	shared := strings.Replace(on, "\n  </devices>", mine+"\n  </devices>", 1)
	if back, _, err := removeAdded(withNote(strings.Replace(shared, mine, port+mine, 1))); err != nil || back != shared {
		t.Errorf("with another device of the user's in the slot: %v\n%s", err, cmp.Diff(shared, back))
	}
}

func TestPasswordsAreNotShown(t *testing.T) {
	text := domains.All(t)["virt-manager.xml"]
	after := strings.Replace(text, `<listen type="address"/>`, `<listen type="none"/>`, 1)
	diff := diffText("domain x", text, after)
	if !strings.Contains(diff, "passwd=") || strings.Contains(diff, "geheim") {
		t.Errorf("got:\n%s", diff)
	}
}

// FuzzUndo: whatever the definition, undoing an insertion gives back its bytes.
func FuzzUndo(f *testing.F) {
	for _, text := range domains.All(f) {
		f.Add(text)
	}
	f.Add("<domain>\r\n<devices>x <a/>\t</devices></domain>")
	devices := allDevices(f)
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "ua-rum-") || strings.Contains(text, "setup/1") {
			return
		}
		after, err := insertDevices(text, devices)
		if err != nil {
			return
		}
		back, aliases, err := removeAdded(after)
		if err != nil || back != text || len(aliases) != len(devices) {
			t.Errorf("%v, %q\nwas: %q\nis:  %q", err, aliases, text, back)
		}
	})
}
