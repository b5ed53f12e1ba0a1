//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/cloudinit"
	"github.com/rum-vm/rum-agent/test/e2e/cloudinit/cloudguest"
	"github.com/rum-vm/rum-agent/test/vm"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// patience bounds every wait. It says nothing about speed: an emulated guest on a busy machine is slow.
const patience = 8 * time.Minute

const natMAC, hostOnlyMAC = "52:54:00:00:00:01", "52:54:00:00:00:02"

// machine is a guest with the parts that outlive one boot.
type machine struct {
	t    *testing.T
	ctx  context.Context
	dir  string
	disk string
	boot *vm.Boot
	vm   *vm.VM
	// publicKey is what the guest's user may log in with; the private one is in the file ssh-key.
	publicKey string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	t.Cleanup(cancel)
	image, err := cloudguest.System.Fetch(ctx, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, ctx: ctx, dir: t.TempDir(), boot: image.Config().Boot}
	private := filepath.Join(m.dir, "ssh-key")
	if err := command(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "dev@laptop", "-f", private); err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(private + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	m.publicKey = strings.TrimSpace(string(public))
	m.disk = filepath.Join(m.dir, "disk.img")
	if err := command(ctx, "cp", "--sparse=always", "--reflink=auto", image.Disk, m.disk); err != nil {
		t.Fatal(err)
	}
	return m
}

// powerOn boots the machine with a seed image and waits until cloud-init and everything else is done.
func (m *machine) powerOn(seed string) {
	m.t.Helper()
	began := time.Now()
	// One CPU: with two, emulated, QEMU 7.2 now and then aborts while the firmware maps the devices
	// ("msix_table_mmio_write: Assertion"), because the second one looks them up where they were.
	var err error
	m.vm, err = vm.Start(m.ctx, vm.Config{
		Boot: m.boot, Memory: 640, CPUs: 1, SerialSocket: filepath.Join(m.dir, "agent"),
		Disks: []vm.Disk{{Path: m.disk}, {Path: seed, ReadOnly: true}},
		Nets: []vm.Net{
			{Backend: "user,net=10.0.2.0/24,hostfwd=tcp:127.0.0.1:2222-:22", MAC: natMAC},
			{Backend: "user,net=192.168.50.0/24,restrict=on", MAC: hostOnlyMAC},
		},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	machine := m.vm
	m.t.Cleanup(func() {
		if m.t.Failed() && machine == m.vm {
			m.t.Logf("console:\n%s", machine.Console())
		}
		machine.Stop()
	})
	m.settle(began)
}

// settle waits for the end of the boot.
func (m *machine) settle(began time.Time) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.ctx, patience)
	defer cancel()
	// It fails when any unit does; which, the tests look at.
	_, err := m.vm.Run(ctx, "systemctl is-system-running --wait; cloud-init status --wait")
	if exit := (*vm.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	m.t.Logf("booted after %v", time.Since(began).Round(time.Second))
}

// reboot has the guest reboot itself.
func (m *machine) reboot() {
	m.t.Helper()
	before := m.run("cat /proc/sys/kernel/random/boot_id")
	began := time.Now()
	m.run("systemctl --no-block reboot")
	for now := before; now == before; {
		try, cancel := context.WithTimeout(m.ctx, 3*time.Second)
		out, err := m.vm.Run(try, "cat /proc/sys/kernel/random/boot_id")
		cancel()
		if err == nil {
			now = strings.TrimSpace(out)
		}
		if m.ctx.Err() != nil || errors.Is(err, vm.ErrEnded) {
			m.t.Fatalf("the guest does not come back: %v", err)
		}
	}
	m.settle(began)
}

// powerOff has the guest end itself, so that its disk is in order.
func (m *machine) powerOff() {
	m.t.Helper()
	m.run("systemctl --no-block poweroff")
	ctx, cancel := context.WithTimeout(m.ctx, patience)
	defer cancel()
	if err := m.vm.Wait(ctx); err != nil {
		m.t.Fatal("the guest does not power off: ", err)
	}
	m.vm.Stop()
}

// run executes a command in the guest.
func (m *machine) run(format string, args ...any) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.ctx, patience)
	defer cancel()
	out, err := m.vm.Run(ctx, fmt.Sprintf(format, args...))
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// install has the host agent install a guest agent over ssh, and returns what it says.
func (m *machine) install(version string) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.ctx, patience)
	defer cancel()
	agents := os.Getenv(stage)
	cmd := exec.CommandContext(ctx, filepath.Join(agents, "host"), "install", "dev", "--to", "debian@127.0.0.1",
		"--agent", filepath.Join(agents, version), "--", "-p", "2222", "-i", filepath.Join(m.dir, "ssh-key"), "-F", "none",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR")
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(m.dir, "state"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Fatalf("install: %v\n%s", err, out)
	}
	return string(out)
}

// property is one of systemd's of a unit.
func (m *machine) property(unit, name string) string {
	m.t.Helper()
	return m.run("systemctl show --value -p %s %s", name, unit)
}

// active is when a unit became active, began is when it was started last; in microseconds since the kernel started.
func (m *machine) active(unit string) int64 {
	return m.timestamp(unit, "ActiveEnterTimestampMonotonic")
}
func (m *machine) began(unit string) int64 {
	return m.timestamp(unit, "InactiveExitTimestampMonotonic")
}

func (m *machine) timestamp(unit, property string) (us int64) {
	m.t.Helper()
	if _, err := fmt.Sscan(m.property(unit, property), &us); err != nil || us == 0 {
		m.t.Fatalf("%s of %s is %d, error %v", property, unit, us, err)
	}
	return us
}

// hostAgent is a running rum-host-agent with one VM.
type hostAgent struct {
	t      *testing.T
	socket string
}

func startHostAgent(m *machine, key keyfile.Key) *hostAgent {
	t := m.t
	t.Helper()
	file := filepath.Join(m.dir, "key")
	if err := keyfile.WritePrivate(file, key.Encode()); err != nil {
		t.Fatal(err)
	}
	h := &hostAgent{t: t, socket: filepath.Join(m.dir, "control")}
	log, err := os.Create(filepath.Join(m.dir, "host.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(os.Getenv(stage), "host"), "run", "--socket", h.socket,
		"--vm", "dev=serial:"+filepath.Join(m.dir, "agent")+",key="+file)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		kill := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		defer kill.Stop()
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the host agent did not end cleanly: %v", err)
		}
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("host agent:\n%s", text)
		}
	})
	return h
}

// status is the one machine's.
func (h *hostAgent) status(ctx context.Context) (status.VM, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(os.Getenv(stage), "host"), "status", "--json", "--socket", h.socket).Output()
	if err != nil {
		return status.VM{}, fmt.Errorf("status: %w", err)
	}
	var st status.Status
	if err := json.Unmarshal(out, &st); err != nil || len(st.VMs) != 1 {
		return status.VM{}, fmt.Errorf("status: %v in %s", err, out)
	}
	return st.VMs[0], nil
}

// waitForPage waits until the guest's page is served on the host by an agent of that version, with the key proven.
func (h *hostAgent) waitForPage(ctx context.Context, port int, want, version string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	try := func() error {
		page, err := fetch(ctx, fmt.Sprintf("http://127.0.0.1:%d/page", port))
		if err == nil && page != want {
			err = fmt.Errorf("the page is %q", page)
		}
		if err != nil {
			return err
		}
		machine, err := h.status(ctx)
		if err == nil && (machine.Auth != "psk" || machine.AgentVersion != version) {
			err = fmt.Errorf("agent %q, auth %q", machine.AgentVersion, machine.Auth)
		}
		return err
	}
	for {
		err := try()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			machine, _ := h.status(context.Background())
			h.t.Fatalf("no page from the guest: %v; status: %+v", err, machine)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func fetch(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	return strings.TrimSpace(string(page)), err
}

// writeSeed makes a seed image with the agent of that version.
func writeSeed(m *machine, s cloudinit.Seed, version string) string {
	m.t.Helper()
	agent, err := cloudinit.ReadAgent(filepath.Join(os.Getenv(stage), version))
	if err != nil {
		m.t.Fatal(err)
	}
	s.Agents = []cloudinit.Agent{agent}
	path := filepath.Join(m.dir, "seed-"+version+".iso")
	if err := s.WriteISO(path); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// command runs a program; what it says becomes part of the error.
func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}
