package libvirt

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"libvirt.org/go/libvirtxml"
)

// withSeed is what planning does to the definition for a seed image.
func withSeed(t *testing.T, text, seed string) (after string, p *Plan, err error) {
	t.Helper()
	p = &Plan{Domain: "dev"}
	var def libvirtxml.Domain
	if err := def.Unmarshal(text); err != nil {
		t.Fatal(err)
	}
	if err := planSeed(p, &def, SetupOptions{Seed: seed}); err != nil {
		return "", p, err
	}
	if after, err = replaceDevices(text, p.update); err == nil {
		after, err = insertDevices(after, p.attach)
	}
	return after, p, err
}

func TestSeedTakesAFreeDriveOfTheMachine(t *testing.T) {
	disk := func(dev string) string { return "<disk device='disk'><target dev='" + dev + "'/></disk>" }
	for _, test := range []struct{ machine, devices, want string }{
		{"pc-q35-7.2", "", "dev='sda' bus='sata'"},
		{"q35", disk("vda") + disk("sda") + disk("sdc"), "dev='sdb' bus='sata'"},
		{"pc", disk("hda"), "dev='hdb' bus='ide'"},
		{"pc-i440fx-7.2", disk("hda") + disk("hdb") + disk("hdc"), "dev='hdd' bus='ide'"},
		{"virt-7.2", disk("vda"), "dev='sda' bus='scsi'"},
		{"pc", disk("hda") + disk("hdb") + disk("hdc") + disk("hdd"), ""},
	} {
		text := "<domain><os><type machine='" + test.machine + "'>hvm</type></os><devices>" + test.devices + "<memballoon/></devices></domain>"
		after, _, err := withSeed(t, text, "/seed.iso")
		switch {
		case test.want == "" && (err == nil || Hint(err) == ""):
			t.Errorf("%s with all drives taken: %v; %s", test.machine, err, Hint(err))
		case test.want != "" && (err != nil || !strings.Contains(after, "<target "+test.want+"/>")):
			t.Errorf("%s: want %s, got %v\n%s", test.machine, test.want, err, after)
		}
	}
}

func TestSeedIsAttachedOnceAndReplaced(t *testing.T) {
	for name, text := range domains(t) {
		t.Run(name, func(t *testing.T) {
			first, p, err := withSeed(t, text, "/images/one's.iso")
			if err != nil || len(p.attach) != 1 || len(p.update) != 0 {
				t.Fatalf("%v, %+v", err, p)
			}
			again, p, err := withSeed(t, first, "/images/one's.iso")
			if err != nil || again != first || len(p.attach)+len(p.update) != 0 {
				t.Errorf("a second time: %v, %+v", err, p)
			}
			second, p, err := withSeed(t, first, "/images/two.iso")
			if err != nil || len(p.attach) != 0 || len(p.update) != 1 {
				t.Fatalf("another image: %v, %+v", err, p)
			}
			if want := strings.Replace(first, "/images/one&#39;s.iso", "/images/two.iso", 1); second != want {
				t.Error(cmp.Diff(want, second))
			}
			back, aliases, err := removeAdded(second)
			if err != nil || back != text || !slices.Equal(aliases, []string{seedAlias}) {
				t.Errorf("undone: %v, %q\n%s", err, aliases, cmp.Diff(text, back))
			}
		})
	}
}

func TestSeedThatTheUserAttachedStays(t *testing.T) {
	text := `<domain><devices><disk type='file' device='cdrom'><source file='/mine.iso'/><target dev='sda' bus='sata'/></disk></devices></domain>`
	if after, p, err := withSeed(t, text, "/mine.iso"); err != nil || after != text || !p.Empty() {
		t.Errorf("%v\n%s", err, after)
	}
}
