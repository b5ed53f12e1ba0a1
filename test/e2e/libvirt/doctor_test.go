//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// doctor is what the command of that name says, where something is wrong as well.
func doctor(t *testing.T, args ...string) string {
	t.Helper()
	out, _ := exec.CommandContext(t.Context(), filepath.Join(os.Getenv(binVariable), "rum-host-agent"), append([]string{"doctor", "--json"}, args...)...).Output()
	return string(out)
}

func TestDoctorLooksAtLibvirtAndItsNetworksAndAtDomainsThatNoAgentServes(t *testing.T) {
	define(t, "dev", bare("dev", "q35", ""))
	contains(t, doctor(t), `"qemu:///system answers"`, "there is no rum-hostonly; rum-host-agent setup makes it", "no agent runs")
	setUp(t, "dev", options)
	contains(t, doctor(t), `"rum-hostonly is active"`)

	virsh(t, "net-autostart", hostOnly, "--disable")
	contains(t, doctor(t), "will not be after the next boot", `"command": "virsh -c qemu:///system net-autostart rum-hostonly"`)
	virsh(t, "net-autostart", hostOnly)
	virsh(t, "net-destroy", hostOnly)
	contains(t, doctor(t), "rum-hostonly is not active", `"command": "virsh -c qemu:///system net-start rum-hostonly"`)

	contains(t, doctor(t, "dev"), `"it is off"`, `"command": "virsh -c qemu:///system start dev"`)
	contains(t, doctor(t, "nobody"), "libvirt neither: no such domain", `"command": "virsh -c qemu:///system list --all"`)
}

func TestDoctorTellsAUserOutsideTheGroupToJoinIt(t *testing.T) {
	u := nobody(t)
	program := u.given(t, filepath.Join(os.Getenv(binVariable), "rum-host-agent"), 0o500)
	command := u.command(program, "doctor", "--json")
	command.Env = append(command.Environ(), "LIBVIRT_DEFAULT_URI=qemu:///system")
	said, err := command.Output()
	if err == nil {
		t.Error("nothing is wrong")
	}
	contains(t, string(said), "libvirt is not available", `"command": "sudo usermod -aG libvirt $USER"`, "this user may have ports of the host from ")
}
