//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/setup"
)

// unchanged asserts that the domain is as it was and no network of ours is there.
func unchanged(t *testing.T, domain, before string) {
	t.Helper()
	if got := definition(t, domain); got != before {
		t.Errorf("the definition was changed:\n%s", got)
	}
	if networks := virsh(t, "net-list", "--all", "--name"); strings.Contains(networks, hostOnly) {
		t.Errorf("a network was left behind: %s", networks)
	}
}

// TestAMachineWithoutRoomIsLeftAsItIs: the device is named for which there is no room, and nothing of the rest is done.
func TestAMachineWithoutRoomIsLeftAsItIs(t *testing.T) {
	nics := func(bus, slot, count int) string {
		var b strings.Builder
		for range count {
			fmt.Fprintf(&b, "<interface type='user'><model type='e1000'/><address type='pci' bus='%d' slot='%d'/></interface>", bus, slot)
			slot++
		}
		return b.String()
	}
	const little = "<memballoon model='none'/><controller type='usb' model='none'/>"
	// One root port is free, and the slots beside it are not. Slot 31 is the chipset's.
	onePort := little + nics(0, 2, 29)
	for i := range 8 {
		onePort += fmt.Sprintf("<controller type='pci' index='%d' model='pcie-root-port'><address type='pci' bus='0' slot='1' function='%d'/></controller>", i+1, i)
		if i > 0 {
			onePort += nics(i+1, 0, 1)
		}
	}
	for name, c := range map[string]struct{ machine, devices, lacksRoom string }{
		"no-pci":   {"isapc", little, "NIC 52:54:00:"},
		"no-slot":  {"pc", little + nics(0, 2, 30), "NIC 52:54:00:"},
		"one-port": {"q35", onePort, "agent channel rum.agent.0: "},
	} {
		t.Run(name, func(t *testing.T) {
			define(t, name, bare(name, c.machine, c.devices))
			restore(t, definition(t, name))
			before := definition(t, name)
			conn := open(t)
			plan, err := setup.NewPlan(t.Context(), conn, name, options)
			if err != nil {
				t.Fatal(err)
			}
			_, err = setup.Apply(t.Context(), conn, plan)
			t.Logf("%v\n%s", err, libvirt.Hint(err))
			if !errors.Is(err, setup.ErrRefused) || !strings.HasPrefix(err.Error(), c.lacksRoom) ||
				!strings.Contains(err.Error(), "cannot be added to "+name+": ") || !strings.Contains(libvirt.Hint(err), "no PCI slot left") {
				t.Errorf("got %v\n%s", err, libvirt.Hint(err))
			}
			unchanged(t, name, before)
		})
	}
}

// TestANetworkThatCannotStartLeavesNothingBehind: an address of its subnet comes to the host after the plan was made.
func TestANetworkThatCannotStartLeavesNothingBehind(t *testing.T) {
	define(t, "netless", bare("netless", "q35", "<interface type='user'/>"))
	restore(t, definition(t, "netless"))
	before := definition(t, "netless")
	c := open(t)
	plan, err := setup.NewPlan(t.Context(), c, "netless", options)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"link add busy type bridge", "addr add 192.168.50.77/24 dev busy", "link set busy up"} {
		if err := output(exec.Command("ip", strings.Fields(args)...)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { output(exec.Command("ip", "link", "del", "busy")) })
	_, err = setup.Apply(t.Context(), c, plan)
	if err == nil || !strings.Contains(err.Error(), "starting network "+hostOnly) || strings.Contains(err.Error(), "taking back") {
		t.Errorf("got %v", err)
	}
	unchanged(t, "netless", before)
}
