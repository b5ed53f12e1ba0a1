//go:build e2evsock

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/debian"
	"github.com/rum-vm/rum-agent/test/vm"
)

// projectFile is the rum.toml of a project on the host VM, whose VM is called shop.
const projectFile = "/root/shop/shop.rum.toml"

// loadProject puts the guest of a project into the cargo, and the key that it has as the host's user has it.
func loadProject(ctx context.Context, kernel *vm.Kernel, content string) error {
	store := keys.Store{Dir: filepath.Join(content, "keys")}
	identity := keys.ProjectIdentity(config.ProjectID(projectFile))
	key, err := store.Draft("shop", identity)
	if err == nil {
		err = store.Keep("shop", identity, key)
	}
	if err != nil {
		return err
	}
	guest := vm.Initramfs{
		Hostname:  "shop",
		Agent:     filepath.Join(content, "rum-guest-agent"),
		AgentArgs: []string{"--key-file", "/etc/key", "--listen", "vsock"},
		Script:    "nc -ll -p 8080 -e hostname &",
		Secrets:   map[string]string{"/etc/key": string(key.Encode())},
		Modules:   []string{vm.VsockModule},
	}
	return guest.Write(ctx, kernel, filepath.Join(content, "project-initramfs"))
}

// projectDevices are the devices of a domain of rum's: the disk that it runs from, the seed on sda, NAT, a network of the
// project's own, and vsock with an automatic CID.
const projectDevices = `
    <disk type="file" device="disk"><driver name="qemu" type="raw"/><source file="%[1]s/overlay.qcow2"/><target dev="vda" bus="virtio"/></disk>
    <disk type="file" device="cdrom"><driver name="qemu" type="raw"/><source file="%[1]s/seed-00aa.iso"/><target dev="sda" bus="sata"/><readonly/></disk>
    <interface type="network"><source network="default"/><model type="virtio"/></interface>
    <interface type="network"><mac address="52:54:00:17:00:01"/><source network="%[2]s"/><model type="virtio"/></interface>
    <vsock model="virtio"><cid auto="yes"/></vsock>`

// onItsNetworks is an address of the project's own network or of libvirt's.
const onItsNetworks = `(10\.77\.1|192\.168\.122)\.`

// makeProject makes on the host VM what rum makes of a project, its domain included, and returns the domain's devices.
func makeProject(t *testing.T) string {
	t.Helper()
	id := config.ProjectID(projectFile)
	work, network := "/root/.local/share/rum/"+id+"-shop", "rum-"+id+"-lan"
	sh(t, fmt.Sprintf(`mkdir -p %[1]s %[2]s /var/lib/rum-agent && cp -a %[3]s/keys /var/lib/rum-agent/
cat >%[4]s <<END
[image]
base = "x"
[resources]
cpus = 1
memory_mb = 256
[[network.interfaces]]
network = "lan"
[[ports]]
host = 18080
guest = 8080
END
printf %[4]s >%[2]s/config_path; ssh-keygen -q -t ed25519 -N "" -f %[2]s/ssh_ed25519
truncate -s 1M %[2]s/overlay.qcow2
XDG_STATE_HOME=/run/seed rum-host-agent cloudinit shop -o %[2]s/seed-00aa.iso --agent %[3]s/rum-guest-agent`,
		filepath.Dir(projectFile), work, debian.Cargo, projectFile))
	sh(t, fmt.Sprintf(`cat >/run/lan.xml <<END
<network><name>%[1]s</name><ip address="10.77.1.1" prefix="24"><dhcp><range start="10.77.1.100" end="10.77.1.254"/></dhcp></ip></network>
END
virsh -q net-define /run/lan.xml && virsh -q net-start %[1]s && virsh -q net-start default`, network))
	t.Cleanup(func() {
		_, _ = host.Run(context.WithoutCancel(t.Context()), fmt.Sprintf(`virsh -q destroy shop; virsh -q undefine shop
for network in %[1]s default; do virsh -q net-destroy $network; done; virsh -q net-undefine %[1]s; rm -r /var/lib/rum-agent %[2]s`, network, work))
	})
	return fmt.Sprintf(projectDevices, work, network)
}

// TestADomainOfRumsDefinedAnewRegainsForwardsKeyAndAddressOverVsock has a domain with what rum generates and nothing else,
// undefined and defined anew without a UUID under a running agent, as rum does when its XML changes.
func TestADomainOfRumsDefinedAnewRegainsForwardsKeyAndAddressOverVsock(t *testing.T) {
	devices := makeProject(t)
	defineGuest(t, "shop", "project-initramfs", devices)
	out := sh(t, "HOME=/root rum-host-agent setup shop")
	if !strings.Contains(out, "shop: nothing to do") || !strings.Contains(out, "the domain has all that it needs: bring the agent in with") {
		t.Errorf("a domain of rum's needs no setup, which says:\n%s", out)
	}
	agent := strings.TrimSpace(sh(t, "HOME=/root rum-host-agent run >/run/agent.log 2>&1 </dev/null & echo $!"))
	defer sh(t, "kill "+agent+"; while kill -0 "+agent+" 2>/dev/null; do sleep 0.2; done")
	sh(t, "virsh -q start shop")
	before := untilServed(t, "the project's port", func(status.VM) bool { return true })
	if before.Config == nil || before.Config.File != projectFile {
		t.Errorf("it follows %+v, and not %s", before.Config, projectFile)
	}
	uuid := sh(t, "virsh domuuid shop")

	sh(t, "virsh -q destroy shop && virsh -q undefine shop && rm /run/shop.console")
	defineGuest(t, "shop", "project-initramfs", devices)
	if sh(t, "virsh domuuid shop") == uuid {
		t.Fatal("the domain has the UUID that it had")
	}
	sh(t, `(until grep -qs "is up" /run/shop.console; do sleep 0.2; done; cut -d" " -f1 /proc/uptime
until test "$(echo | busybox nc -w 30 127.0.0.1 18080)" = shop; do sleep 0.2; done; cut -d" " -f1 /proc/uptime) >/run/took 2>/dev/null </dev/null &
virsh -q start shop`)
	after := untilServed(t, "the port of the domain defined anew", func(v status.VM) bool { return v.RedefinedAt != nil })
	if after.Loopback != before.Loopback || after.Config == nil || after.Config.File != projectFile {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if got := strings.TrimSpace(sh(t, "echo | busybox nc -w 30 "+before.Loopback+" 8080; true")); got != "shop" {
		t.Errorf("%s says %q at its own address", before.Loopback, got)
	}
	t.Logf("status:\n%s", sh(t, "rum-host-agent status"))
	var up, served float64
	if _, err := fmt.Sscan(sh(t, "until test $(wc -l </run/took) = 2; do sleep 0.2; done; cat /run/took"), &up, &served); err != nil {
		t.Fatal(err)
	}
	t.Logf("forward, key and own address are back %.2f s after the guest was up, by the clock of the host VM", served-up)
	until(t, "an address from a network of the domain's", bootLimit, func(st status.Status) bool {
		return len(st.VMs) == 1 && regexp.MustCompile(onItsNetworks).MatchString(st.VMs[0].BridgeIP)
	})
	// No ssh server runs in the guest.
	said := sh(t, "HOME=/root rum-host-agent install shop --agent "+debian.Cargo+"/rum-guest-agent -- -o ConnectTimeout=20 2>&1; true")
	if !regexp.MustCompile(`shop is the VM of ` + projectFile + `; going in as rum@` + onItsNetworks).MatchString(said) {
		t.Errorf("install goes elsewhere:\n%s", said)
	}
	log := sh(t, "cat /run/agent.log")
	_, anew, found := strings.Cut(log, `msg="the domain was defined anew`)
	if !found {
		t.Errorf("the log does not say that the domain was defined anew:\n%s", log)
	}
	t.Logf("the agent's log from then on:\n%s", anew)
}

// untilServed waits until shop has a keyed link over vsock that carries its port to where its project's rum.toml says.
func untilServed(t *testing.T, what string, fits func(status.VM) bool) (shop status.VM) {
	t.Helper()
	took := until(t, what, bootLimit, func(st status.Status) bool {
		for _, v := range st.VMs {
			for _, f := range v.Forwards {
				if v.Name == "shop" && v.State == status.Connected && v.Auth == "psk" && strings.HasPrefix(v.Endpoint, "vsock:") && v.Loopback != "" &&
					f.Port == 8080 && f.State == status.Active && f.Path == "vsock" && f.Host[0] == "127.0.0.1:18080" && fits(v) {
					shop = v
					return true
				}
			}
		}
		return false
	})
	t.Logf("%s is there, with the project's key, %v after its start", what, took.Round(time.Second))
	return shop
}
