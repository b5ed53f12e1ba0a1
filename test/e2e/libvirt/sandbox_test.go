//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/test/e2e/cloudinit/cloudguest"
	"github.com/rum-vm/rum-agent/test/vm"
)

// stageVariable tells the binary which of its three lives it is in, binVariable where the agents are.
const (
	stageVariable = "RUM_E2E_LIBVIRT_STAGE"
	binVariable   = "RUM_E2E_LIBVIRT_BIN"
)

func TestMain(m *testing.M) {
	var code int
	var err error
	switch os.Getenv(stageVariable) {
	case "":
		code, err = enterSandbox()
	case "init":
		code, err = runInit()
	case "tests":
		code, err = runTests(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// enterSandbox starts the binary again in namespaces of its own. What has to come from the network comes before.
func enterSandbox() (int, error) {
	if err := requirePrograms(); err != nil {
		return 1, err
	}
	if _, err := vm.FetchKernel(context.Background(), os.Stderr); err != nil {
		return 1, err
	}
	if _, err := cloudguest.System.Fetch(context.Background(), os.Stderr); err != nil {
		return 1, err
	}
	bin, err := os.MkdirTemp("", "rum-e2e-libvirt-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(bin)
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", bin, "../../../agent-host/cmd/rum-host-agent", "../../../agent-guest/cmd/rum-guest-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := output(build); err != nil {
		return 1, err
	}
	cmd := again("init")
	cmd.Env = append(cmd.Env, binVariable+"="+bin)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	return 0, err
}

func requirePrograms() error {
	if os.Getuid() != 0 {
		return errors.New("these tests run a libvirtd of their own, which takes root: run them with sudo")
	}
	packages := map[string]string{
		"libvirtd": "libvirt-daemon-system", "virtlogd": "libvirt-daemon-system", "dnsmasq": "dnsmasq-base",
		"dbus-daemon": "dbus", "ip": "iproute2", "qemu-system-x86_64": "qemu-system-x86", "iptables": "iptables",
		"virt-install": "virtinst", "debugfs": "e2fsprogs", "ssh": "openssh-client",
	}
	for program, pkg := range packages {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: run 'apt-get install %s'", err, pkg)
		}
	}
	return vm.Require()
}

func again(stage string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), stageVariable+"="+stage)
	return cmd
}

// runInit is the first process of the sandbox. libvirtd leaves its QEMUs to it; it waits for them, because libvirtd takes
// a zombie for a process that refuses to die.
func runInit() (int, error) {
	if err := privateMounts(); err != nil {
		return 1, err
	}
	if err := output(exec.Command("ip", "link", "set", "lo", "up")); err != nil {
		return 1, err
	}
	tests := again("tests")
	if err := tests.Start(); err != nil {
		return 1, err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return 1, fmt.Errorf("waiting for the tests: %w", err)
		}
		if pid == tests.Process.Pid {
			if status.Signaled() {
				return 1, fmt.Errorf("the tests ended by signal %v", status.Signal())
			}
			return status.ExitStatus(), nil
		}
	}
}

const qemuConf = `
cgroup_controllers = []
user = "root"
group = "root"
security_driver = "none"
remember_owner = 0
namespaces = []
`

// privateMounts gives the sandbox its own state of libvirt.
func privateMounts() error {
	mounts := []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"", "/", "", syscall.MS_REC | syscall.MS_PRIVATE},
		{"proc", "/proc", "proc", 0},
		{"tmpfs", "/run", "tmpfs", 0},
		{"/run/etc-libvirt", "/etc/libvirt", "", syscall.MS_BIND},
		{"tmpfs", "/var/lib/libvirt", "tmpfs", 0},
		{"tmpfs", "/var/log/libvirt", "tmpfs", 0},
		{"tmpfs", "/var/cache/libvirt", "tmpfs", 0},
	}
	for _, m := range mounts {
		if m.flags == syscall.MS_BIND {
			if err := os.CopyFS(m.source, os.DirFS(m.target)); err != nil {
				return fmt.Errorf("copying %s: %w", m.target, err)
			}
		}
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", m.target, err)
		}
	}
	for _, dir := range []string{"/run/dbus", "/run/libvirt", "/run/lock", "/var/lib/libvirt/qemu", "/var/lib/libvirt/dnsmasq"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/etc/libvirt/qemu", "/etc/libvirt/hooks"} { // no definitions of the machine's own
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	f, err := os.OpenFile("/etc/libvirt/qemu.conf", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(qemuConf)
	return errors.Join(err, f.Close())
}

// output runs a command and returns an error with what it printed.
func output(cmd *exec.Cmd) error {
	text, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, text)
	}
	return nil
}

// daemon is a process that serves on a unix socket.
type daemon struct {
	name   string
	socket string
	args   []string
	cmd    *exec.Cmd
}

const libvirtSocket = "/run/libvirt/libvirt-sock"

var libvirtd = &daemon{name: "libvirtd", socket: libvirtSocket}

func runTests(m *testing.M) (int, error) {
	for _, d := range []*daemon{
		{name: "dbus-daemon", socket: "/run/dbus/system_bus_socket", args: []string{"--system", "--nofork", "--nopidfile"}},
		{name: "virtlogd", socket: "/run/libvirt/virtlogd-sock"},
		libvirtd,
	} {
		if err := d.start(); err != nil {
			return 1, err
		}
	}
	code := m.Run()
	if code != 0 {
		showLogs()
	}
	return code, nil
}

func (d *daemon) log() string { return filepath.Join("/run", d.name+".log") }

// start runs the daemon and waits until it answers.
func (d *daemon) start() error {
	log, err := os.OpenFile(d.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd = exec.Command(d.name, d.args...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		return err
	}
	deadline := time.Now().Add(30 * time.Second)
	for !answers(d.socket) {
		if time.Now().After(deadline) {
			showLogs()
			return fmt.Errorf("%s does not answer on %s", d.name, d.socket)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

// stop ends the daemon and leaves what it looks after.
func (d *daemon) stop() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err := d.cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil
	}
	return err
}

func showLogs() {
	logs, _ := filepath.Glob("/run/*.log")
	guests, _ := filepath.Glob("/var/log/libvirt/qemu/*.log")
	for _, path := range append(logs, guests...) {
		if text, err := os.ReadFile(path); err == nil && len(text) > 0 {
			fmt.Fprintf(os.Stderr, "--- %s\n%s", path, text[max(0, len(text)-4000):])
		}
	}
}
