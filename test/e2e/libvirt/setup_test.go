//go:build e2e

package e2e

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/setup"
)

const hostOnly = "rum-hostonly"

var options = setup.Options{
	HostOnly:     hostOnly,
	Subnet:       netip.MustParsePrefix("192.168.50.0/24"),
	NAT:          "default",
	HostHasVsock: func() bool { return false },
}

func open(t *testing.T) *libvirt.Conn {
	t.Helper()
	c, err := libvirt.Open(t.Context(), "qemu:///system")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// setUp plans and applies, and removes the network when the test ends.
func setUp(t *testing.T, domain string, opts setup.Options) setup.Result {
	t.Helper()
	c := open(t)
	plan, err := setup.NewPlan(t.Context(), c, domain, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		exec.Command("virsh", "-q", "net-destroy", hostOnly).Run() // gone already if the test undid the set-up
		exec.Command("virsh", "-q", "net-undefine", hostOnly).Run()
	})
	result, err := setup.Apply(t.Context(), c, plan)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("steps:\n%s\nnotes:\n%s\ndiff:\n%s", strings.Join(plan.Steps, "\n"), strings.Join(plan.Notes, "\n"), result.Diff)
	return result
}

func definition(t *testing.T, domain string) string {
	return virsh(t, "dumpxml", "--inactive", "--security-info", domain)
}

// restore stores a definition once more: libvirt brings the controllers that it added into another order then.
func restore(t *testing.T, xml string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "domain.xml")
	if err := os.WriteFile(path, []byte(xml), 0o600); err != nil {
		t.Fatal(err)
	}
	virsh(t, "define", path)
}

// bare is what little libvirt needs; it adds the controllers itself.
func bare(name, machine, devices string) string {
	return `<domain type='qemu'>
  <name>` + name + `</name>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64' machine='` + machine + `'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    ` + devices + `
  </devices>
</domain>`
}

func TestSetupIsIdempotentAndUndoGivesBackTheDefinition(t *testing.T) {
	for _, tt := range []struct{ name, xml string }{
		{"q35", bare("q35", "q35", "")},
		{"pc", bare("pc", "pc", "")},
		{"with-nic-and-password", bare("with-nic-and-password", "q35", `<interface type='user'/>
			<graphics type='vnc' passwd='geheim'/>`)},
		{"with-qemu-agent", bare("with-qemu-agent", "q35", `<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>`)},
		{"without-pcie-ports", bare("without-pcie-ports", "q35", `<controller type='pci' model='pcie-root'/>`)},
		{"with-a-port-that-shares-its-slot", bare("with-a-port-that-shares-its-slot", "q35", `<controller type='pci' model='pcie-root'/>
			<controller type='pci' index='1' model='pcie-root-port'><address type='pci' bus='0' slot='1' function='0'/></controller>
			<controller type='usb' model='none'/><memballoon model='none'/><interface type='user'><model type='virtio'/></interface>`)},
		{"with-metadata", strings.Replace(bare("with-metadata", "q35", ""), "<devices>",
			`<metadata><app:note xmlns:app='https://example.org/app'>mine</app:note></metadata><devices>`, 1)},
	} {
		for _, vsock := range []bool{false, true} {
			name := tt.name + map[bool]string{false: "/channel", true: "/vsock"}[vsock]
			t.Run(name, func(t *testing.T) {
				opts := options
				opts.NAT = ""
				opts.HostHasVsock = func() bool { return vsock }
				define(t, tt.name, tt.xml)
				restore(t, definition(t, tt.name))
				before := definition(t, tt.name)
				result := setUp(t, tt.name, opts)
				if strings.Contains(result.Diff, "geheim") {
					t.Error("the diff shows a password")
				}
				after := definition(t, tt.name)
				wanted := []string{"<source network='rum-hostonly'/>", "<target type='virtio' name='rum.agent.0'/>"}
				if vsock {
					wanted[1] = "<cid auto='yes'/>"
				}
				for _, want := range wanted {
					if !strings.Contains(after, want) {
						t.Errorf("definition lacks %s:\n%s", want, after)
					}
				}
				c := open(t)
				plan, err := setup.NewPlan(t.Context(), c, tt.name, opts)
				if err != nil {
					t.Fatal(err)
				}
				if !plan.Empty() || plan.Diff != "" {
					t.Errorf("a second setup would change again: %q\n%s", plan.Steps, plan.Diff)
				}
				undo, err := setup.NewUndo(t.Context(), c, tt.name, hostOnly)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := setup.Apply(t.Context(), c, undo); err != nil {
					t.Fatal(err)
				}
				if got := definition(t, tt.name); got != before {
					t.Errorf("after setup and undo the definition differs (-before +after):\n%s", cmp.Diff(before, got))
				}
				if networks := virsh(t, "net-list", "--all", "--name"); strings.Contains(networks, hostOnly) {
					t.Errorf("the network is still there: %s", networks)
				}
			})
		}
	}
}

func TestSetupRefusesASubnetInUseAndNamesAFreeOne(t *testing.T) {
	for _, args := range []string{"link add busy type bridge", "addr add 192.168.50.77/24 dev busy", "link set busy up"} {
		if err := output(exec.Command("ip", strings.Fields(args)...)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { output(exec.Command("ip", "link", "del", "busy")) })
	define(t, "refused", bare("refused", "q35", "<interface type='user'/>"))
	_, err := setup.NewPlan(t.Context(), open(t), "refused", options)
	if !errors.Is(err, setup.ErrSubnetTaken) {
		t.Fatalf("got %v, want ErrSubnetTaken", err)
	}
	if !strings.Contains(err.Error(), "dev busy") || !strings.Contains(libvirt.Hint(err), "192.168.51.0/24 is free") {
		t.Errorf("got %v; %s", err, libvirt.Hint(err))
	}
	said, err := exec.CommandContext(t.Context(), filepath.Join(os.Getenv(binVariable), "rum-host-agent"), "setup", "refused").CombinedOutput()
	const want = `rum-host-agent: network rum-hostonly: subnet is taken: 192.168.50.0/24 overlaps the route 192.168.50.0/24 dev busy
192.168.51.0/24 is free: set subnet = "192.168.51.0/24" under [network] in rum.toml
`
	if err == nil || string(said) != want {
		t.Errorf("got %v\n%s", err, said)
	}
}

func TestADomainChangedSinceThePlanIsLeftAlone(t *testing.T) {
	define(t, "raced", bare("raced", "q35", "<interface type='user'/>"))
	c := open(t)
	opts := options
	opts.HostOnly = ""
	plan, err := setup.NewPlan(t.Context(), c, "raced", opts)
	if err != nil {
		t.Fatal(err)
	}
	virsh(t, "desc", "raced", "--config", "another hand")
	changed := definition(t, "raced")
	if _, err := setup.Apply(t.Context(), c, plan); !errors.Is(err, setup.ErrChanged) {
		t.Errorf("got %v", err)
	}
	if definition(t, "raced") != changed {
		t.Error("the definition was changed all the same")
	}
}

func TestAnUnknownDomainIsSaidSo(t *testing.T) {
	_, err := setup.NewPlan(t.Context(), open(t), "nobody", options)
	if !errors.Is(err, libvirt.ErrNoDomain) {
		t.Errorf("got %v, want ErrNoDomain", err)
	}
}

// TestAnInactiveNetworkIsMentionedWithTheCommandThatStartsIt: libvirt's package leaves the network default stopped on some
// distributions, and a domain on it does not start.
func TestAnInactiveNetworkIsMentionedWithTheCommandThatStartsIt(t *testing.T) {
	defaultNetwork(t)
	define(t, "stranded", bare("stranded", "q35", "<interface type='network'><source network='default'/></interface><interface type='network'><source network='gone'/></interface>"))
	const missing = "note: network gone does not exist, and stranded does not start without it; see: virsh -c qemu:///system net-list --all\n"
	if said := rum(t, "setup", "stranded", "--dry-run"); strings.Contains(said, "network default") || !strings.Contains(said, missing) {
		t.Error("with the network active")
	}
	virsh(t, "net-destroy", "default")
	const (
		start     = "note: network default is not active, and stranded does not start without it: virsh -c qemu:///system net-start default\n"
		autostart = "note: network default is not started with libvirt either: virsh -c qemu:///system net-autostart default\n"
	)
	contains(t, rum(t, "setup", "stranded", "--dry-run"), start, autostart)
	virsh(t, "net-autostart", "default")
	said := rum(t, "setup", "stranded", "--dry-run")
	contains(t, said, start)
	if strings.Contains(said, autostart) {
		t.Error("the network would be started with libvirt")
	}
	virsh(t, "net-start", "default") // defaultNetwork stops it
}
