package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/test/sysroot"
)

// Each command that takes a VM of rum's asks the libvirt daemon that its rum.toml names: what is wrong with that is told.
func TestEachCommandAsksTheDaemonOfTheProject(t *testing.T) {
	vm := newRumVM(t, sysroot.New(t, machine()))
	if err := os.WriteFile(vm.file, []byte("[advanced]\nlibvirt_uri = \"qemu:///session\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv("LIBVIRT_DEFAULT_URI", "")
	const session = "start the session daemon with: virsh -c qemu:///session version"
	for _, row := range []struct{ command, uri, want string }{
		{"setup shop", "", session},
		{"setup shop --keep no", "", session},
		{"setup --undo shop", "", session},
		{"install shop --agent " + vm.agent, "", session},
		{"install shop --via qga --agent " + vm.agent, "", session},
		{"uninstall shop --via qga", "", session},
		// Where the socket of that daemon is, is for the user to say, and which daemon it is at last.
		{"setup shop", "qemu:///session?socket=/nowhere/mine", "/nowhere/mine"},
		{"uninstall shop", "qemu:///session?socket=/nowhere/mine", "/nowhere/mine"},
		{"setup shop --libvirt qemu:///system?socket=/nowhere/other", "", "/nowhere/other"},
		{"uninstall shop --libvirt qemu:///system?socket=/nowhere/other", "", "/nowhere/other"},
	} {
		t.Setenv("LIBVIRT_DEFAULT_URI", row.uri)
		_, _, err := runHere(t, strings.Fields(row.command)...)
		if err == nil || !strings.Contains(err.Error()+"\n"+hintOf(err), row.want) {
			t.Errorf("%s with %q: %v; %s", row.command, row.uri, err, hintOf(err))
		}
	}
	if left, _ := filepath.Glob(filepath.Join(vm.state, "rum-agent", "setups.json")); len(left) > 0 {
		t.Errorf("something is remembered: %q", left)
	}
}
