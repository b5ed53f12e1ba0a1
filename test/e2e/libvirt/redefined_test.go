//go:build e2e

package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// TestADomainDefinedAnewGetsBackItsNICWithItsAddress has a domain of nobody's in particular, which is off, and agents that
// may change it and may only look.
func TestADomainDefinedAnewGetsBackItsNICWithItsAddress(t *testing.T) {
	host := newRumHost(t)
	xml := bare("kept", "q35", "<interface type='user'/>")
	define(t, "kept", xml)
	t.Cleanup(func() {
		if err := output(host.command("setup", "--undo", "kept")); err != nil {
			t.Error(err)
		}
	})
	seed := seedImage(t, t.TempDir(), "kept")
	host.run(t, false, "setup", "kept", "--seed", seed)
	nic := func() string {
		t.Helper()
		_, rest, _ := strings.Cut(virsh(t, "domiflist", "kept", "--inactive"), hostOnly)
		fields := strings.Fields(rest)
		if len(fields) < 2 {
			return ""
		}
		return fields[1]
	}
	before := nic()
	if before == "" {
		t.Fatal("setup gave it no NIC")
	}
	putBack := func(st status.Status) bool { return len(st.Setups) == 1 && st.Setups[0].Error == "" }

	looks := &hostAgent{socket: filepath.Join(t.TempDir(), "agent.sock")}
	looks.run(t, host.command("run", "--socket", looks.socket, "--libvirt", "qemu+unix:///system?socket=/run/libvirt/libvirt-sock-ro"))
	looks.until(t, "libvirt answers", 10*time.Second, func(st status.Status) bool { return len(st.Discovery) == 1 && st.Discovery[0].Error == "" })
	redefine(t, "kept", xml)
	looks.until(t, "that nothing is put back", 10*time.Second, func(st status.Status) bool {
		return len(st.Setups) == 1 && strings.Contains(st.Setups[0].Error, "this connection may only read")
	})
	contains(t, host.run(t, false, "status", "--socket", looks.socket), "setup of kept: defined anew at", "nothing was put back: ")
	if nic() != "" {
		t.Error("it was put back all the same")
	}

	// What was defined anew while no agent could put it back has it when one can.
	a := &hostAgent{socket: filepath.Join(t.TempDir(), "agent.sock")}
	a.run(t, host.command("run", "--socket", a.socket))
	a.until(t, "it is put back", 10*time.Second, putBack)
	if after := nic(); after != before {
		t.Errorf("its NIC is %q, and was %q", after, before)
	}
	contains(t, virsh(t, "domblklist", "kept"), seed)
	contains(t, host.run(t, false, "setup", "kept", "--seed", seed), "kept: nothing to do")

	// Another VM that has its name gets nothing of its.
	other := bare("kept", "q35", "<interface type='user'/><disk type='file'><source file='/images/other.img'/><target dev='vda'/></disk>")
	redefine(t, "kept", other)
	a.until(t, "that it is another", 10*time.Second, func(st status.Status) bool {
		return len(st.Setups) == 1 && strings.Contains(st.Setups[0].Error, "its disk is /images/other.img and was none, so it may be another VM of that name")
	})
	if nic() != "" {
		t.Error("another VM has been set up")
	}

	exec.Command("virsh", "-q", "undefine", "kept").Run()
	contains(t, host.run(t, false, "setup", "kept", "--keep", "no"), "kept: forgotten")
	contains(t, host.run(t, true, "setup", "kept", "--keep", "no"), "no such domain")
	restore(t, xml)
}
