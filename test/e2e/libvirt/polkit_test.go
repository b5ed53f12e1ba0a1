//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// TestAUserOutsideTheGroupIsToldToJoinIt: the daemon's socket lets everybody in, and polkit then asks for a password that
// nobody can type.
func TestAUserOutsideTheGroupIsToldToJoinIt(t *testing.T) {
	u := nobody(t)
	program := u.given(t, filepath.Join(os.Getenv(binVariable), "rum-host-agent"), 0o500)
	for _, args := range [][]string{{"setup", "dev"}, {"network", "status"}} {
		said, err := u.command(program, append(args, "--libvirt", "qemu:///system")...).CombinedOutput()
		if err == nil {
			t.Errorf("%v: no error:\n%s", args, said)
		}
		contains(t, string(said), "rum-host-agent: libvirt is not available: opening qemu:///system: ", "\nadd yourself to the group libvirt and log in again: sudo usermod -aG libvirt $USER\n")
	}
}
