package setup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	diskfile "github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
)

// volume makes an image of that kind with that label.
func volume(t *testing.T, kind, label string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), kind)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	switch kind {
	case "iso9660":
		fs, err := iso9660.Create(diskfile.New(f, false), 0, 0, 2048, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if err := fs.Finalize(iso9660.FinalizeOptions{RockRidge: true, VolumeIdentifier: label}); err != nil {
			t.Fatal(err)
		}
	case "fat12", "fat32": // as mkfs.vfat begins its boot sector
		sector, at := make([]byte, 512), map[string]int{"fat12": 0, "fat32": 28}[kind]
		copy(sector, "\xeb\x3c\x90mkfs.fat")
		sector[38+at] = 0x29 // the extended boot signature, which the volume's number, label and kind follow
		copy(sector[43+at:], fmt.Sprintf("%-11s%-8s", label, strings.ToUpper(kind)))
		copy(sector[510:], "\x55\xaa")
		if _, err := f.Write(append(sector, make([]byte, 64<<10)...)); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// TestOnlyAVolumeThatCloudInitLooksForIsASeed: NoCloud finds its volume by the label.
func TestOnlyAVolumeThatCloudInitLooksForIsASeed(t *testing.T) {
	for _, kind := range []string{"iso9660", "fat12", "fat32"} {
		for label, want := range map[string]string{"CIDATA": "", "cidata": "", "INSTALLER": `has the volume label "INSTALLER"`} {
			err := CheckSeed(volume(t, kind, label))
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s labelled %s: %v", kind, label, err)
			}
		}
	}
	for name, text := range map[string]string{"empty": "", "text": "#cloud-config\n", "long": strings.Repeat("CIDATA ", 10000)} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := CheckSeed(path); err == nil || !strings.Contains(err.Error(), "is no volume with the label CIDATA") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestASecondSeedVolumeIsRefused(t *testing.T) {
	const text = `<domain><devices>
<disk type='file' device='cdrom'><source file='/installer.iso'/><target dev='sda' bus='sata'/></disk>
<disk type='file' device='cdrom'><source file='/mine.iso'/><target dev='sdb' bus='sata'/></disk>
</devices></domain>`
	def, err := libvirt.ParseDefinition(text)
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"sda": "INSTALLER", "sdb": "cidata"}
	labelOf := func(d libvirt.DiskDef) string { return labels[d.Target.Dev] }
	err = planSeed(&Plan{Domain: "dev"}, def, Options{Seed: "/seed.iso"}, labelOf)
	if err == nil || err.Error() != "domain dev: has a seed volume already: disk sdb with /mine.iso" || !strings.Contains(libvirt.Hint(err), "virsh detach-disk dev sdb --config") {
		t.Errorf("got %v; %s", err, libvirt.Hint(err))
	}
	delete(labels, "sdb")
	if err := planSeed(&Plan{Domain: "dev"}, def, Options{Seed: "/seed.iso"}, labelOf); err != nil {
		t.Errorf("without one: %v", err)
	}
}
