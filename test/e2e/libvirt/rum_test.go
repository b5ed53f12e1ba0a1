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
	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/test/vm"
)

// rumProject makes what rum has of a VM: the project's file, and a work directory with the seed in it. The definition
// has no UUID, as rum's have none.
func rumProject(t *testing.T, data, name, rules string) (file, xml string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, name+".rum.toml")
	workDir := filepath.Join(data, "rum", config.ProjectID(file)+"-"+name)
	if err := os.MkdirAll(workDir, 0o755); err != nil {
		t.Fatal(err)
	}
	saveRules(t, file, rules)
	if err := os.WriteFile(filepath.Join(workDir, "config_path"), []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	seed := filepath.Join(workDir, "seed-00aa.iso")
	if err := os.Rename(seedImage(t, dir, name), seed); err != nil {
		t.Fatal(err)
	}
	xml = guestXML(t, name, vm.Initramfs{Script: serve, Agent: filepath.Join(os.Getenv(binVariable), "rum-guest-agent")},
		shellChannel(name)+agentChannel+"    <disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='"+seed+"'/><target dev='sda' bus='sata'/><readonly/></disk>\n")
	return file, xml
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
// channel takes the place of rum's vsock device.
func TestDomainsOfRumFollowTheirProjects(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	shopFile, shopXML := rumProject(t, data, "shop", "[[ports]]\nhost = 18080\nguest = 8080\n[[forward]]\nguest = 8081\nignore = true\n")
	_, blogXML := rumProject(t, data, "blog", "[[ports]]\nhost = 18081\nguest = 8080\nbind = \"127.0.0.2\"\n")
	define(t, "shop", shopXML)
	define(t, "blog", blogXML)

	a := &hostAgent{socket: filepath.Join(t.TempDir(), "agent.sock")}
	cmd := exec.Command(filepath.Join(os.Getenv(binVariable), "rum-host-agent"), "run", "--socket", a.socket)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+data, "XDG_STATE_HOME="+t.TempDir()) // without keys, as the guests are
	a.run(t, cmd)
	start(t, "shop")
	start(t, "blog")
	at := func(host string) func(control.VM, control.Forward) bool {
		return func(v control.VM, f control.Forward) bool {
			return v.State == control.Connected && f.State == control.Active && strings.HasPrefix(fmt.Sprint(f.Host), "["+host+" ")
		}
	}
	kept := func(_ control.VM, f control.Forward) bool { return f.State == control.Ignored }
	a.forward(t, "shop", 8080, "at its host port", bootLimit, at("127.0.0.1:18080"))
	a.forward(t, "shop", 8081, "kept in", bootLimit, kept)
	a.forward(t, "blog", 8080, "at its host port", bootLimit, at("127.0.0.2:18081"))
	a.forward(t, "blog", 8081, "by default", bootLimit, at("127.0.0.1:8081"))
	wantPage(t, "127.0.0.1:18080", "shop")
	wantPage(t, "127.0.0.2:18081", "blog")

	saveRules(t, shopFile, "[[ports]]\nhost = 18090\nguest = 8080\n")
	_, took := a.forward(t, "shop", 8080, "at its new host port", 5*time.Second, at("127.0.0.1:18090"))
	t.Logf("a saved file is live after %v", took)
	if took > time.Second {
		t.Errorf("a saved file is live after %v", took)
	}

	contains(t, refused(t, data, "setup", "shop", "--seed", seedImage(t, t.TempDir(), "shop")), "has a seed volume already: that of rum", "rum-host-agent install shop")

	var before control.VM
	a.until(t, "shop", time.Second, func(st control.Status) bool { before = named(st, "shop"); return before.Loopback != "" })
	uuid := strings.TrimSpace(virsh(t, "domuuid", "shop"))
	virsh(t, "destroy", "shop")
	virsh(t, "undefine", "shop")
	path := filepath.Join(t.TempDir(), "shop.xml")
	if err := os.WriteFile(path, []byte(shopXML), 0o600); err != nil {
		t.Fatal(err)
	}
	virsh(t, "define", path)
	if strings.TrimSpace(virsh(t, "domuuid", "shop")) == uuid {
		t.Fatal("the domain has the UUID that it had")
	}
	start(t, "shop")
	var after control.VM
	a.until(t, "shop linked again", bootLimit, func(st control.Status) bool {
		after = named(st, "shop")
		return after.State == control.Connected && after.RedefinedAt != nil
	})
	_, took = a.forward(t, "shop", 8080, "where it was", 5*time.Second, at("127.0.0.1:18090"))
	t.Logf("the forward is back %v after the link", took)
	if after.Loopback != before.Loopback || after.Config == nil || after.Config.File != shopFile {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	wantPage(t, "127.0.0.1:18090", "shop")
	wantPage(t, before.Loopback+":8080", "shop")
	wantPage(t, "127.0.0.2:18081", "blog")
}

func named(st control.Status, name string) control.VM {
	for _, v := range st.VMs {
		if v.Name == name {
			return v
		}
	}
	return control.VM{}
}

// refused runs rum-host-agent with the projects in data, and returns what it said when it failed.
func refused(t *testing.T, data string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(os.Getenv(binVariable), "rum-host-agent"), args...)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+data)
	said, err := cmd.CombinedOutput()
	if err == nil {
		t.Errorf("%q is done", args)
	}
	return string(said)
}
