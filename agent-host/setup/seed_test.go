package setup

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/test/domains"
)

// withSeed is what planning does to the definition for a seed image.
func withSeed(t *testing.T, text, seed string) (after string, p *Plan, err error) {
	t.Helper()
	p = &Plan{Domain: "dev"}
	def, err := libvirt.ParseDefinition(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := planSeed(p, def, Options{Seed: seed}, func(libvirt.DiskDef) string { return "" }); err != nil {
		return "", p, err
	}
	if after, err = replaceDevices(text, p.update); err == nil {
		after, err = insertDevices(after, p.attach)
	}
	return after, p, err
}

func TestSeedTakesAFreeName(t *testing.T) {
	disks := func(names string) string {
		var b strings.Builder
		for _, n := range names {
			b.WriteString("<disk device='disk'><target dev='vd" + string(n) + "'/></disk>")
		}
		return "<domain><devices>" + b.String() + "<memballoon/></devices></domain>"
	}
	for taken, want := range map[string]string{"": "vda", "a": "vdb", "ac": "vdb", "abc": "vdd"} {
		after, _, err := withSeed(t, disks(taken), "/seed.iso")
		if err != nil || !strings.Contains(after, "<target dev='"+want+"' bus='virtio'/>") {
			t.Errorf("%q is taken: want %s, got %v\n%s", taken, want, err, after)
		}
	}
	if _, _, err := withSeed(t, disks("abcdefghijklmnopqrstuvwxyz"), "/seed.iso"); err == nil || libvirt.Hint(err) == "" {
		t.Errorf("all are taken: %v; %s", err, libvirt.Hint(err))
	}
}

func TestSeedIsAttachedOnceAndReplaced(t *testing.T) {
	for name, text := range domains.All(t) {
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
