//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/cloudinit"
	"github.com/rum-vm/rum-agent/test/debian"
	"github.com/rum-vm/rum-agent/test/vm"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// patience bounds every wait. It says nothing about speed: an emulated guest on a busy
// machine is slow.
const patience = 4 * time.Minute

// system has Podman, a web server without libraries to be in a container, and a newer
// kernel than the other tests' guests.
var system = debian.System{
	Suite:    "trixie",
	Packages: []string{"podman", "crun", "netavark", "nftables", "busybox-static"},
	Setup: `
mkdir -p /cargo /root/image/bin /root/image/www
cp /bin/busybox /root/image/bin/
echo 'hello from a container' >/root/image/www/index.html
echo '/dev/vdb /cargo ext4 ro 0 0' >>/etc/fstab
`,
	Size: 1500,
}

// guest is a Debian machine with a guest agent that its script has installed, and the host agent that serves it.
type guest struct {
	*vm.VM
	ctx    context.Context
	client *control.Client
}

func boot(t *testing.T, flags string) *guest {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	t.Cleanup(cancel)
	image, err := system.Fetch(ctx, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, "cargo")+"/", "../../../agent-guest/cmd/rum-guest-agent", "../../../agent-host/cmd/rum-host-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the agents: %v\n%s", err, out)
	}
	key := installer(t, filepath.Join(dir, "cargo"))
	cargo := filepath.Join(dir, "cargo.img")
	if out, err := exec.CommandContext(ctx, "mke2fs", "-q", "-t", "ext4", "-d", filepath.Join(dir, "cargo"), cargo, "100M").CombinedOutput(); err != nil {
		t.Fatalf("make a disk: %v\n%s", err, out)
	}
	cfg := image.Config()
	cfg.Memory = 1024
	cfg.Disks = append(cfg.Disks, vm.Disk{Path: cargo, ReadOnly: true})
	machine, err := vm.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s", machine.Console())
		}
		machine.Stop()
	})
	if err := machine.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	g := &guest{VM: machine, ctx: ctx}
	g.run(t, `echo 'RUM_GUEST_FLAGS="%s"' >/etc/default/rum-guest-agent; sh /cargo/install`, flags)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := machine.Run(context.Background(), "journalctl -u rum-guest-agent; podman ps -a; nft list ruleset | head -100; ip addr")
			t.Log(out)
		}
	})

	socket := filepath.Join(dir, "control")
	host := exec.CommandContext(ctx, filepath.Join(dir, "cargo", "rum-host-agent"), "run", "--socket", socket, "--vm", "box=serial:"+machine.SerialSocket()+",key="+key)
	host.Stdout, host.Stderr = t.Output(), t.Output()
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Process.Kill(); _ = host.Wait() })
	g.client = control.NewClient(socket)
	return g
}

// installer writes the script that installs the agent in a directory there, and returns the file with its key.
func installer(t *testing.T, dir string) (key string) {
	t.Helper()
	agent, err := cloudinit.ReadAgent(filepath.Join(dir, "rum-guest-agent"))
	if err != nil {
		t.Fatal(err)
	}
	seed := &cloudinit.Seed{Name: "box", Key: keyfile.New(), Agents: []cloudinit.Agent{agent}}
	script, err := seed.Installer()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "install"), script, 0o600); err != nil {
		t.Fatal(err)
	}
	key = filepath.Join(t.TempDir(), "key")
	if err := keyfile.WritePrivate(key, seed.Key.Encode()); err != nil {
		t.Fatal(err)
	}
	return key
}

// run executes a shell command in the guest.
func (g *guest) run(t *testing.T, format string, args ...any) string {
	t.Helper()
	out, err := g.Run(g.ctx, fmt.Sprintf(format, args...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// eventually waits until check has nothing to say against.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	began := time.Now()
	for {
		err := check()
		took := time.Since(began)
		if err == nil {
			t.Logf("%s after %v", what, took.Round(10*time.Millisecond))
			return
		}
		if took > patience {
			t.Fatalf("not %s within %v: %v", what, patience, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// serves checks that a port of the guest is forwarded for a process, and serves the page.
func (g *guest) serves(port uint16, process string) func() error {
	return func() error {
		f, err := g.forward(port)
		if err != nil {
			return err
		}
		if f == nil || f.State != status.Active || !strings.HasPrefix(f.Process, process) {
			return fmt.Errorf("port %d is %+v", port, f)
		}
		response, err := (&http.Client{Timeout: 20 * time.Second}).Get("http://" + f.Host[0] + "/")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		page, err := io.ReadAll(response.Body)
		if got := strings.TrimSpace(string(page)); got != "hello from a container" {
			return fmt.Errorf("the page is %q, error %v", got, err)
		}
		return nil
	}
}

func (g *guest) gone(port uint16) func() error {
	return func() error {
		f, err := g.forward(port)
		if err == nil && f != nil {
			err = fmt.Errorf("port %d is %+v", port, f)
		}
		return err
	}
}

// forward is nil if there is none.
func (g *guest) forward(port uint16) (*status.Forward, error) {
	st, err := g.client.Status(g.ctx)
	if err != nil {
		return nil, err
	}
	for _, vm := range st.VMs {
		for _, f := range vm.Forwards {
			if f.Proto == "tcp" && f.Port == port {
				return &f, nil
			}
		}
	}
	return nil, nil
}

// TestContainersOfPodmanAreOnTheHost: what is published, for which netavark writes rules of the
// packet filter while conmon keeps others off the port, and with --netns all what is not. The agent is installed as any
// VM's is, and runs as hardened as its unit says.
func TestContainersOfPodmanAreOnTheHost(t *testing.T) {
	g := boot(t, "--netns all")
	g.run(t, "tar -C /root/image -c . | podman import - web")
	const podman = "podman run -d --name %s %s localhost/web /bin/busybox httpd -f -p %d -h /www"
	g.run(t, podman, "web", "-p 8080:80", 80)
	eventually(t, "a published port", g.serves(8080, "conmon["))
	g.run(t, podman, "db", "", 5432)
	eventually(t, "a port that is not published", g.serves(5432, "db/busybox["))
	g.run(t, "podman rm -f -t 0 db")
	eventually(t, "gone with its container", g.gone(5432))
	g.run(t, "podman restart -t 0 web")
	eventually(t, "a published port after a restart", g.serves(8080, "conmon["))
	g.run(t, "podman rm -f -t 0 web")
	eventually(t, "no more published", g.gone(8080))
	t.Log(g.run(t, "uname -r; podman version --format '{{.Client.Version}}'; nft list ruleset | grep -c dnat || true"))
	if out := g.run(t, "journalctl -u rum-guest-agent --no-pager"); !strings.Contains(out, "tcp=ebpf udp=ebpf") {
		t.Errorf("the agent does not watch by eBPF:\n%s", out)
	}
}
