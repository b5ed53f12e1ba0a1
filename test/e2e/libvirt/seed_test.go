//go:build e2e

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/test/vm"
)

// printsDisk has the guest print the SHA-256 of its first disk to the console, however often that changes.
const printsDisk = `
while :; do
	[ -b /dev/vda ] && echo "vda $(sha256sum </dev/vda)" >/dev/console
	sleep 2
done &
`

// onConsole is what printsDisk prints while the disk is the file.
func onConsole(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	return "vda " + hex.EncodeToString(sum[:])
}

// TestANewSeedReachesARunningVMAtItsNextStart attaches a seed image to a running VM, and then another one. QEMU cannot
// change what is behind a virtio disk, so the guest has the first one, untouched, until it is started again.
func TestANewSeedReachesARunningVMAtItsNextStart(t *testing.T) {
	const name = "reseeded"
	define(t, name, guestXML(t, name, vm.Initramfs{Script: printsDisk}, ""))
	t.Cleanup(func() { // t's context has ended
		exec.Command("virsh", "-q", "destroy", name).Run() // a network stays as long as a VM runs with it
		undo := exec.Command(filepath.Join(os.Getenv(binVariable), "rum-host-agent"), "setup", "--undo", name)
		if err := output(undo); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	seed := func(file, hostname string) string {
		path := filepath.Join(dir, file)
		if err := os.Rename(seedImage(t, dir, name, "--hostname", hostname), path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first, second := seed("first.iso", "a"), seed("second.iso", "b")
	start(t, name)
	contains(t, rum(t, "setup", name, "--seed", first), "done: add to "+name+": read-only disk vda")
	waitConsole(t, name, onConsole(t, first))

	said := rum(t, "setup", name, "--seed", second)
	contains(t, said, "done: change in "+name+": read-only disk vda with "+second,
		fmt.Sprintf("shut %[1]s down and start it again: virsh shutdown %[1]s; virsh start %[1]s", name))
	if live := virsh(t, "domblklist", name); !strings.Contains(live, first) {
		t.Errorf("the running VM has the drives:\n%s", live)
	}
	contains(t, rum(t, "setup", name, "--seed", second), name+" runs without the seed image: shut it down and start it again")
	virsh(t, "destroy", name)
	start(t, name)
	waitConsole(t, name, onConsole(t, second))
	contains(t, rum(t, "setup", name, "--seed", second), name+": nothing to do")
}

// TestASecondSeedVolumeIsRefused: cloud-init would read one of the two. It is the daemon that reads what is on the drives.
func TestASecondSeedVolumeIsRefused(t *testing.T) {
	dir := t.TempDir()
	ours := seedImage(t, dir, "twice")
	mine := filepath.Join(dir, "mine.iso")
	if err := os.Rename(ours, mine); err != nil {
		t.Fatal(err)
	}
	ours = seedImage(t, dir, "twice")
	define(t, "twice", bare("twice", "q35", `<interface type='user'/>
		<disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>
		<disk type='file' device='cdrom'><source file='`+mine+`'/><target dev='sdb' bus='sata'/></disk>`))
	restore(t, definition(t, "twice"))
	before := definition(t, "twice")
	said, err := exec.CommandContext(t.Context(), filepath.Join(os.Getenv(binVariable), "rum-host-agent"), "setup", "twice", "--seed", ours).CombinedOutput()
	if err == nil {
		t.Error("there are two now")
	}
	contains(t, string(said), "rum-host-agent: domain twice: has a seed volume already: disk sdb with "+mine, "virsh detach-disk twice sdb --config")
	unchanged(t, "twice", before)
	if uuid := boundTo(t, "twice"); uuid != "" {
		t.Errorf("the key was bound to %s", uuid)
	}
	virsh(t, "detach-disk", "twice", "sdb", "--config")
	contains(t, rum(t, "setup", "twice", "--seed", ours), "done: add to twice: read-only disk vda")
	rum(t, "setup", "--undo", "twice")
}
