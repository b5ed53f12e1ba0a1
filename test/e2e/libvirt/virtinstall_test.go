//go:build e2e

package e2e

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/e2e/cloudinit/cloudguest"
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

// servesPage is a user's own user-data.
const servesPage = `#cloud-config
write_files:
  - path: /srv/page
    content: |
      hello from the guest
  - path: /etc/systemd/system/web.service
    content: |
      [Service]
      ExecStart=/usr/bin/python3 -m http.server --directory /srv 8080
runcmd:
  - systemctl start web.service
`

// TestVirtInstallLineLeadsToALinkedGuest runs the lines that docs/cloud-init.md shows, from a cloud image to a page of the
// guest on localhost. Then the guest's agent leaves and comes back, by each way there is.
func TestVirtInstallLineLeadsToALinkedGuest(t *testing.T) {
	defaultNetwork(t)
	define(t, "other", bare("other", "q35", "<interface type='user'/>"))
	setUp(t, "other", options) // makes the host-only network
	dir, file := rumWorkDir(t, "dev")
	image, err := cloudguest.System.Fetch(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if err := cloudguest.BootableDisk(t.Context(), image, filepath.Join(dir, "dev.img")); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(dir, "my-user-data")
	if err := os.WriteFile(mine, []byte(servesPage), 0o600); err != nil {
		t.Fatal(err)
	}
	key := newSSHKey(t, dir)
	seed := seedImage(t, dir, "dev", "--user-data", mine, "--ssh-key", key+".pub", "--nat-mac", "52:54:00:12:34:56", "--hostonly-mac", "52:54:00:12:34:57")
	a := runWithoutArguments(t)

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
	err = line.Run()
	t.Logf("$ %s\n%s", strings.Join(line.Args, " "), said.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	console := followConsole(t, "dev")
	contains(t, virsh(t, "domstate", "dev"), "running")
	contains(t, virsh(t, "domblklist", "dev"), seed)
	contains(t, rum(t, "setup", "dev", "--seed", seed), "dev: nothing to do")
	if uuid := strings.TrimSpace(virsh(t, "domuuid", "dev")); boundTo(t, "dev") != uuid {
		t.Errorf("the key is for %q, not for %s", boundTo(t, "dev"), uuid)
	}

	defer func() {
		if t.Failed() {
			t.Logf("console:\n%s", console())
		}
	}()
	took := a.until(t, "dev connected with its key", cloudBootLimit, func(st status.Status) bool {
		return len(st.VMs) == 1 && st.VMs[0].Name == "dev" && st.VMs[0].State == status.Connected && st.VMs[0].Auth == "psk"
	})
	t.Logf("linked %v after the line", took.Round(time.Second))
	forward, took := a.forward(t, "dev", 8080, "active", cloudBootLimit, func(_ status.VM, f status.Forward) bool { return f.State == status.Active })
	t.Logf("its page is on %v %v later", forward.Host, took.Round(time.Second))
	response, err := http.Get("http://localhost:8080/page")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || string(body) != "hello from the guest\n" {
		t.Errorf("the page is %q, error %v", body, err)
	}
	contains(t, rum(t, "status"), "dev", "connected", "psk", "8080")
	a.until(t, "the bridge address", cloudBootLimit, func(st status.Status) bool {
		return strings.HasPrefix(st.VMs[0].BridgeIP, "192.168.50.")
	})
	makeRumProject(t, dir, file, "debian")
	goesAndComesBack(t, a, "dev")
}

// TestReadmeLeadsFromNothingToAServedVM runs the lines of README's "Use it" as they stand there, on a host that has libvirt's
// own network and nothing of ours.
func TestReadmeLeadsFromNothingToAServedVM(t *testing.T) {
	defaultNetwork(t)
	dir := t.TempDir()
	image, err := cloudguest.System.Fetch(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if err := cloudguest.BootableDisk(t.Context(), image, filepath.Join(dir, "dev.img")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
	bin := filepath.Join(dir, "bin") // as make build leaves it
	if err := os.CopyFS(bin, os.DirFS(os.Getenv(binVariable))); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(bin, "rum-guest-agent"), filepath.Join(bin, "rum-guest-agent-linux-"+runtime.GOARCH)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	steps := readmeSteps(t)
	t.Cleanup(func() {
		for _, does := range [][]string{{"destroy", "dev"}, {"undefine", "dev"}, {"net-destroy", "rum-hostonly"}, {"net-undefine", "rum-hostonly"}} {
			exec.Command("virsh", append([]string{"-q"}, does...)...).Run() // it may not have come to be
		}
	})
	var a *hostAgent
	for _, step := range steps {
		command, _, _ := strings.Cut(step, "#")
		switch strings.TrimSpace(command) {
		case "rum-host-agent run":
			a = runWithoutArguments(t)
			a.until(t, "dev connected with its key", cloudBootLimit, func(st status.Status) bool {
				return len(st.VMs) == 1 && st.VMs[0].State == status.Connected && st.VMs[0].Auth == "psk"
			})
		default:
			// No KVM here, whose use virt-install cannot be asked to try.
			line := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(command, "--import", "--import --virt-type qemu"))
			line.Dir = dir
			line.Env = append(os.Environ(), "XDG_CACHE_HOME="+dir)
			out, err := line.CombinedOutput()
			t.Logf("$ %s\n%s", step, out)
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if a == nil {
		t.Fatalf("README's lines do not run the agent: %q", steps)
	}
	contains(t, rum(t, "status"), "dev", "connected", "psk")
}

// readmeSteps are the commands of README for libvirt and a cloud image.
func readmeSteps(t *testing.T) []string {
	t.Helper()
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, use, _ := strings.Cut(string(readme), "\nWith libvirt and a cloud image")
	_, use, _ = strings.Cut(use, "\n\n    ")
	var steps []string
	joined := strings.ReplaceAll("    "+use, "\\\n", "")
	for line := range strings.Lines(joined) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		if !strings.HasPrefix(line, "    ") {
			break
		}
		steps = append(steps, strings.TrimSpace(line))
	}
	return steps
}

// cloudBootLimit is how long an emulated cloud image may take to boot on a busy machine.
const cloudBootLimit = 8 * time.Minute

// defaultNetwork makes the network that libvirt's package brings, for the time of the test.
func defaultNetwork(t *testing.T) {
	t.Helper()
	virsh(t, "net-define", "/usr/share/libvirt/networks/default.xml")
	virsh(t, "net-start", "default")
	t.Cleanup(func() {
		for _, does := range []string{"net-destroy", "net-undefine"} {
			if err := output(exec.Command("virsh", "-q", does, "default")); err != nil {
				t.Error(err)
			}
		}
	})
}

// runWithoutArguments runs the host agent as a user does who has configured nothing; the other commands find it.
func runWithoutArguments(t *testing.T) *hostAgent {
	t.Helper()
	runtime := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", runtime)
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	cmd := exec.Command(filepath.Join(os.Getenv(binVariable), "rum-host-agent"), "run")
	cmd.Dir = t.TempDir()
	a := &hostAgent{socket: filepath.Join(runtime, "rum-host-agent.sock")}
	a.run(t, cmd)
	return a
}

// followConsole collects what a running domain writes to its console.
func followConsole(t *testing.T, domain string) func() string {
	t.Helper()
	tty, err := os.OpenFile(strings.TrimSpace(virsh(t, "ttyconsole", domain)), os.O_RDONLY|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var text bytes.Buffer
	go func() { // ends with the terminal's other side
		buf := make([]byte, 4096)
		for {
			n, err := tty.Read(buf)
			mu.Lock()
			text.Write(buf[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { tty.Close() })
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return text.String()
	}
}
