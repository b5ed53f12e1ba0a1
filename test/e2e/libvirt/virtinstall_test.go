//go:build e2e

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/keys"
)

// seedImage writes a seed image for the name in the directory, with keys kept apart from the user's.
func seedImage(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
	path := filepath.Join(dir, name+"-seed.iso")
	rum(t, append([]string{"cloudinit", name, "-o", path, "--agent", filepath.Join(os.Getenv(binVariable), "rum-guest-agent")}, args...)...)
	return path
}

// boundTo returns the UUID of the domain that the name's key is for.
func boundTo(t *testing.T, name string) string {
	t.Helper()
	dir, err := keys.DefaultDir()
	if err != nil {
		t.Fatal(err)
	}
	record, err := os.ReadFile(filepath.Join(dir, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(record), `"uuid": "`)
	uuid, _, _ := strings.Cut(rest, `"`)
	return uuid
}

func TestSetupAttachesTheSeed(t *testing.T) {
	for _, machine := range []string{"q35", "pc"} {
		t.Run(machine, func(t *testing.T) {
			name := "seeded-" + machine
			define(t, name, bare(name, machine, "<interface type='user'/>"))
			restore(t, definition(t, name))
			before := definition(t, name)
			seed := seedImage(t, t.TempDir(), name)

			contains(t, rum(t, "setup", name, "--dry-run", "--seed", seed), "would add to "+name+": read-only disk", "+      <source file='"+seed+"'/>")
			if uuid := boundTo(t, name); uuid != "" || definition(t, name) != before {
				t.Fatalf("--dry-run changed the domain, or bound the key to %q", uuid)
			}
			contains(t, rum(t, "setup", name, "--seed", seed), "done: add to "+name+": read-only disk", "+      <alias name='ua-rum-seed'/>")
			if uuid := strings.TrimSpace(virsh(t, "domuuid", name)); boundTo(t, name) != uuid {
				t.Errorf("the key is for %q, not for %s", boundTo(t, name), uuid)
			}
			contains(t, virsh(t, "domblklist", name), seed)
			contains(t, rum(t, "setup", name, "--seed", seed), name+": nothing to do")

			newer := filepath.Join(t.TempDir(), "newer.iso")
			if err := os.Rename(seed, newer); err != nil {
				t.Fatal(err)
			}
			t.Setenv("XDG_STATE_HOME", t.TempDir()) // another user's
			contains(t, rum(t, "setup", name, "--seed", newer), "done: change in "+name+": read-only disk",
				"no key for "+name+": the image was made by another user, or for another name")
			if drives := virsh(t, "domblklist", name); strings.Contains(drives, seed) || !strings.Contains(drives, newer) {
				t.Errorf("the drives are:\n%s", drives)
			}
			rum(t, "setup", "--undo", name)
			if definition(t, name) != before {
				t.Error("undo did not give back the definition")
			}
		})
	}
}

// TestVirtInstallTakesTheSeed runs the line that docs/cloud-init.md shows.
func TestVirtInstallTakesTheSeed(t *testing.T) {
	virsh(t, "net-define", "/usr/share/libvirt/networks/default.xml")
	virsh(t, "net-start", "default")
	t.Cleanup(func() {
		virsh := func(args ...string) {
			if err := output(exec.Command("virsh", append([]string{"-q"}, args...)...)); err != nil {
				t.Error(err)
			}
		}
		virsh("net-destroy", "default")
		virsh("net-undefine", "default")
	})
	define(t, "other", bare("other", "q35", "<interface type='user'/>"))
	setup(t, "other", options) // makes the host-only network
	dir := t.TempDir()
	if err := os.Truncate(touch(t, filepath.Join(dir, "dev.img")), 64<<20); err != nil {
		t.Fatal(err)
	}
	seedImage(t, dir, "dev", "--nat-mac", "52:54:00:12:34:56", "--hostonly-mac", "52:54:00:12:34:57")

	line := exec.CommandContext(t.Context(), "virt-install", "--name", "dev", "--memory", "512", "--osinfo", "detect=on,require=off", "--virt-type", "qemu",
		"--import", "--disk", "dev.img,bus=virtio", "--disk", "dev-seed.iso,bus=virtio,readonly=on",
		"--network", "network=default,model=virtio,mac=52:54:00:12:34:56", "--network", "network=rum-hostonly,model=virtio,mac=52:54:00:12:34:57",
		"--channel", "unix,target.type=virtio,target.name=rum.agent.0", "--graphics", "none", "--noautoconsole")
	line.Dir = dir
	line.Env = append(os.Environ(), "XDG_CACHE_HOME="+dir) // its log
	var said bytes.Buffer
	line.Stdout, line.Stderr = &said, &said
	t.Cleanup(func() {
		exec.Command("virsh", "-q", "destroy", "dev").Run() // it may not have come to run
		exec.Command("virsh", "-q", "undefine", "dev").Run()
	})
	err := line.Run()
	t.Logf("$ %s\n%s", strings.Join(line.Args, " "), said.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	contains(t, virsh(t, "domstate", "dev"), "running")
	contains(t, virsh(t, "domblklist", "dev"), filepath.Join(dir, "dev-seed.iso"))
	contains(t, rum(t, "setup", "dev", "--seed", filepath.Join(dir, "dev-seed.iso")), "dev: nothing to do")
	if uuid := strings.TrimSpace(virsh(t, "domuuid", "dev")); boundTo(t, "dev") != uuid {
		t.Errorf("the key is for %q, not for %s", boundTo(t, "dev"), uuid)
	}
}

// touch makes an empty file.
func touch(t *testing.T, path string) string {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
