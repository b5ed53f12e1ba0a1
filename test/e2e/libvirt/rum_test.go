//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/vm"
)

// rumHost is where rum and the host agent have what is theirs.
type rumHost struct{ data, state string }

func newRumHost(t *testing.T) rumHost {
	return rumHost{data: filepath.Join(t.TempDir(), "data"), state: t.TempDir()}
}

func (h rumHost) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(os.Getenv(binVariable), "rum-host-agent"), args...)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+h.data, "XDG_STATE_HOME="+h.state)
	return cmd
}

// run returns what the host agent's command says, and fails the test where it does not do as it is told, or does all the same.
func (h rumHost) run(t *testing.T, fails bool, args ...string) string {
	t.Helper()
	said, err := h.command(args...).CombinedOutput()
	t.Logf("$ rum-host-agent %s\n%s", strings.Join(args, " "), said)
	if (err != nil) != fails {
		t.Fatalf("%q: %v", args, err)
	}
	return string(said)
}

// rumProject is what rum has of a VM. The definition has no UUID, as rum's have none.
type rumProject struct{ file, id, xml string }

// project makes the project's file, a work directory with the seed in it, and the VM's own
// network, on a subnet such as 10.77.1. The guest agent has a
// key, which the host has too.
func (h rumHost) project(t *testing.T, name, subnet, rules string) rumProject {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := rumProject{file: filepath.Join(dir, name+".rum.toml")}
	p.id = config.ProjectID(p.file)
	workDir := filepath.Join(h.data, "rum", p.id+"-"+name)
	if err := os.MkdirAll(workDir, 0o755); err != nil {
		t.Fatal(err)
	}
	saveRules(t, p.file, rules)
	if err := os.WriteFile(filepath.Join(workDir, "config_path"), []byte(p.file), 0o644); err != nil {
		t.Fatal(err)
	}
	seed := filepath.Join(workDir, "seed-00aa.iso")
	if err := os.Rename(seedImage(t, dir, name), seed); err != nil {
		t.Fatal(err)
	}
	store := keys.Store{Dir: filepath.Join(h.state, "rum-agent", "keys")}
	key, err := store.Draft(name, keys.ProjectIdentity(p.id))
	if err == nil {
		err = store.Keep(name, keys.ProjectIdentity(p.id), key)
	}
	if err != nil {
		t.Fatal(err)
	}
	network := "rum-" + p.id + "-lan"
	isolatedNetwork(t, network, subnet)
	guest := vm.Initramfs{
		Script:    serve,
		Agent:     filepath.Join(os.Getenv(binVariable), "rum-guest-agent"),
		AgentArgs: []string{"--key-file", "/etc/key", "--listen", "serial:/dev/virtio-ports/" + vm.AgentPort},
		Secrets:   map[string]string{"/etc/key": string(key.Encode())},
	}
	p.xml = guestXML(t, name, guest, shellChannel(name)+fmt.Sprintf(`    <disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='%s'/><target dev='sda' bus='sata'/><readonly/></disk>
    <interface type='network'><source network='default'/><model type='virtio'/></interface>
    <interface type='network'><source network='%s'/><model type='virtio'/></interface>
`, seed, network))
	return p
}

// isolatedNetwork makes a network as rum does for a VM, on a subnet such as 10.77.1, for the time of the test.
func isolatedNetwork(t *testing.T, name, subnet string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "network.xml")
	xml := fmt.Sprintf("<network><name>%s</name><ip address='%s.1' prefix='24'><dhcp><range start='%[2]s.100' end='%[2]s.254'/></dhcp></ip></network>", name, subnet)
	if err := os.WriteFile(path, []byte(xml), 0o600); err != nil {
		t.Fatal(err)
	}
	virsh(t, "net-define", path)
	virsh(t, "net-start", name)
	t.Cleanup(func() {
		for _, does := range []string{"net-destroy", "net-undefine"} {
			if err := output(exec.Command("virsh", "-q", does, name)); err != nil {
				t.Error(err)
			}
		}
	})
}

func saveRules(t *testing.T, file, rules string) {
	t.Helper()
	text := "[image]\nbase = \"x\"\n[resources]\ncpus = 1\nmemory_mb = 256\n" + rules
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestDomainsOfRumFollowTheirProjects has two projects whose guests listen on one port, with different rules, and one of
// the domains defined anew, as rum does, under a running agent. The host of these tests has no vhost_vsock, so that a
// channel takes the place of rum's vsock device: setup adds it, and the new definition lacks it.
func TestDomainsOfRumFollowTheirProjects(t *testing.T) {
	defaultNetwork(t)
	host := newRumHost(t)
	shop := host.project(t, "shop", "10.77.1", "[[ports]]\nhost = 18080\nguest = 8080\n[[forward]]\nguest = 8081\nignore = true\n")
	blog := host.project(t, "blog", "10.77.2", "[[ports]]\nhost = 18081\nguest = 8080\nbind = \"127.0.0.2\"\n")
	define(t, "shop", shop.xml)
	define(t, "blog", blog.xml)
	for _, name := range []string{"shop", "blog"} {
		contains(t, host.run(t, false, "setup", name), "done: add to "+name+": agent channel", "rum-host-agent run puts it back")
		start(t, name)
	}
	a := &hostAgent{socket: filepath.Join(t.TempDir(), "agent.sock")}
	a.run(t, host.command("run", "--socket", a.socket))
	at := func(host string) func(status.VM, status.Forward) bool {
		return func(v status.VM, f status.Forward) bool {
			return v.State == status.Connected && f.State == status.Active && strings.HasPrefix(fmt.Sprint(f.Host), "["+host+" ")
		}
	}
	kept := func(_ status.VM, f status.Forward) bool { return f.State == status.Ignored }
	a.forward(t, "shop", 8080, "at its host port", bootLimit, at("127.0.0.1:18080"))
	a.forward(t, "shop", 8081, "kept in", bootLimit, kept)
	a.forward(t, "blog", 8080, "at its host port", bootLimit, at("127.0.0.2:18081"))
	a.forward(t, "blog", 8081, "by default", bootLimit, at("127.0.0.1:8081"))
	wantPage(t, "127.0.0.1:18080", "shop")
	wantPage(t, "127.0.0.2:18081", "blog")

	saveRules(t, shop.file, "[[ports]]\nhost = 18090\nguest = 8080\n")
	_, took := a.forward(t, "shop", 8080, "at its new host port", 5*time.Second, at("127.0.0.1:18090"))
	t.Logf("a saved file is live after %v", took)

	contains(t, host.run(t, true, "setup", "shop", "--seed", seedImage(t, t.TempDir(), "shop")), "has a seed volume already: that of rum", "rum-host-agent install shop")

	var before status.VM
	a.until(t, "shop has its address", 10*time.Second, func(st status.Status) bool { before = named(st, "shop"); return before.Loopback != "" })
	if before.Auth != "psk" {
		t.Errorf("shop is linked to with auth %q", before.Auth)
	}
	virsh(t, "destroy", "shop")
	redefine(t, "shop", shop.xml)
	took = a.until(t, "the channel is back", 5*time.Second, func(st status.Status) bool {
		return len(st.Setups) == 1 && st.Setups[0].Domain == "shop" && st.Setups[0].Error == "" && len(st.Setups[0].Done) == 1
	})
	t.Logf("what setup added is back %v after the domain was defined anew", took)
	contains(t, definition(t, "shop"), "name='rum.agent.0'")
	start(t, "shop")
	waitConsole(t, "shop", "init: shop is up")
	up := time.Now()
	var after status.VM
	a.until(t, "shop linked again", bootLimit, func(st status.Status) bool {
		after = named(st, "shop")
		return after.State == status.Connected && after.Auth == "psk" && after.RedefinedAt != nil
	})
	_, took = a.forward(t, "shop", 8080, "where it was", 5*time.Second, at("127.0.0.1:18090"))
	t.Logf("the forward is back %v after the link, %v after the guest is up", took, time.Since(up))
	if after.Loopback != before.Loopback || after.Config == nil || after.Config.File != shop.file {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	wantPage(t, "127.0.0.1:18090", "shop")
	wantPage(t, before.Loopback+":8080", "shop")
	wantPage(t, "127.0.0.2:18081", "blog")
	contains(t, host.run(t, false, "status", "--socket", a.socket), "setup of shop: defined anew at", "put back: add to shop: agent channel", "  defined anew at")

	contains(t, host.run(t, false, "setup", "shop", "--keep", "no"), "shop: nothing to do", "nothing is put back when another program defines shop anew")
	virsh(t, "destroy", "shop")
	redefine(t, "shop", shop.xml)
	a.until(t, "shop is forgotten", 10*time.Second, func(st status.Status) bool { return len(st.Setups) == 0 })
	if strings.Contains(definition(t, "shop"), "rum.agent.0") {
		t.Error("--keep no had it put back")
	}
}

// redefine does as rum does with a domain that is off when what it would write differs.
func redefine(t *testing.T, name, xml string) {
	t.Helper()
	uuid := virsh(t, "domuuid", name)
	virsh(t, "undefine", name)
	restore(t, xml)
	if virsh(t, "domuuid", name) == uuid {
		t.Fatal("the domain has the UUID that it had")
	}
}

func named(st status.Status, name string) status.VM {
	for _, v := range st.VMs {
		if v.Name == name {
			return v
		}
	}
	return status.VM{}
}
