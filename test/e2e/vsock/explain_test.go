//go:build e2evsock

package e2e

import (
	"fmt"
	"testing"
)

// TestExplainIsRightAboutWhatIsBelowTheGuestAgent has the command name what is missing on the host, of a kernel without
// the module, of a context ID that nobody has, of a domain that is off, and of one without a device.
func TestExplainIsRightAboutWhatIsBelowTheGuestAgent(t *testing.T) {
	run := func(name, args string) (end string) {
		sh(t, fmt.Sprintf("rum-host-agent run --socket /run/%[1]s.sock %[2]s >/run/%[1]s.log 2>&1 </dev/null & echo $! >/run/%[1]s.pid", name, args))
		return fmt.Sprintf("kill $(cat /run/%s.pid)", name)
	}
	explains := func(name, words string) {
		t.Helper()
		sh(t, fmt.Sprintf("until rum-host-agent explain 8080 --vm %[1]s --socket /run/%[1]s.sock >/run/said 2>&1; grep -F '%[2]s' /run/said; do sleep 1; done", name, words))
		t.Log(sh(t, "cat /run/said"))
	}

	sh(t, "modprobe -r vhost_vsock")
	end := run("far", "--libvirt none --vm far=vsock:99")
	explains("far", "sudo modprobe vhost_vsock")
	sh(t, "modprobe vhost_vsock")
	explains("far", "no VM that runs has 99")
	sh(t, end)

	define(t, "plain", "")
	end = run("plain", "--libvirt qemu:///system")
	explains("plain", "virsh start plain")
	sh(t, "virsh -q start plain")
	explains("plain", "rum-host-agent setup plain")
	sh(t, end+"; virsh -q destroy plain; virsh -q undefine plain")
}
