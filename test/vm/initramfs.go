package vm

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Names of the guest's virtio-serial ports, as <target name=...> in libvirt's
// domain XML: the agent's, and the one behind [VM.Run].
const (
	AgentPort = "rum.agent.0"
	ShellPort = "rum.test.shell"
)

// GuestAgent is where the guest keeps the agent.
const GuestAgent = "/bin/rum-guest-agent"

// Initramfs says what a guest consists of. The zero value is a guest with a
// shell on [ShellPort] and nothing else.
type Initramfs struct {
	// Hostname of the guest; "rum-guest" when empty.
	Hostname string
	// Agent is the host's path of a static rum-guest-agent; none runs when
	// empty. It is started again whenever it ends, unless /run/agent-off
	// exists in the guest.
	Agent string
	// AgentArgs are its arguments; when nil, --listen on [AgentPort].
	AgentArgs []string
	// Script is a shell script that runs once the guest is up.
	Script string
	// Files are further files, executable: guest path to host path.
	Files map[string]string
	// Secrets are further files, which only root may read: guest path to content.
	Secrets map[string]string
	// Modules are kernel modules beyond those that every guest has. What they need is
	// found in modules.dep.
	Modules []string
}

//go:embed init.sh
var initScript []byte

//go:embed dhcp.sh
var dhcpScript []byte

// baseModules make the devices work that a guest may have here, and sock_diag, whose
// modules the kernel of a distribution fetches itself when somebody asks.
var baseModules = []string{
	"virtio_pci", "virtio_console", "virtio_net", "virtio_blk", "virtio_rng",
	"inet_diag", "tcp_diag", "udp_diag",
}

// VsockModule is the module a guest with a [Config.CID] needs.
const VsockModule = "vmw_vsock_virtio_transport"

// Write writes the initramfs for kernel k to the file at path.
func (r *Initramfs) Write(ctx context.Context, k *Kernel, dst string) error {
	if err := requireTools("busybox"); err != nil {
		return err
	}
	entries, err := r.entries(ctx, k)
	if err != nil {
		return fmt.Errorf("build the initramfs: %w", err)
	}
	f, err := os.Create(dst)
	if err != nil {
		return fmt.Errorf("build the initramfs: %w", err)
	}
	defer f.Close()
	archive := newCPIOWriter(f)
	made := map[string]bool{".": true, "/": true}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		addParents(archive, made, path.Dir(name))
		archive.add(name, modeFile|0o755, entries[name])
	}
	for _, name := range slices.Sorted(maps.Keys(r.Secrets)) {
		inside := strings.TrimPrefix(path.Clean(name), "/")
		addParents(archive, made, path.Dir(inside))
		archive.add(inside, modeFile|0o600, []byte(r.Secrets[name]))
	}
	if err := archive.close(); err != nil {
		return fmt.Errorf("write %s: %w", dst, err)
	}
	return f.Close()
}

func addParents(archive *cpioWriter, made map[string]bool, dir string) {
	if made[dir] {
		return
	}
	addParents(archive, made, path.Dir(dir))
	archive.add(dir, modeDir|0o755, nil)
	made[dir] = true
}

// entries is the content of the initramfs by guest path, with no leading /.
func (r *Initramfs) entries(ctx context.Context, k *Kernel) (map[string][]byte, error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	hostname := r.Hostname
	if hostname == "" {
		hostname = "rum-guest"
	}
	args := r.AgentArgs
	if args == nil {
		args = []string{"--listen", "serial:/dev/virtio-ports/" + AgentPort}
	}
	entries := map[string][]byte{
		"init":               initScript,
		"etc/rum/dhcp":       dhcpScript,
		"etc/rum/hostname":   []byte(hostname + "\n"),
		"etc/rum/agent-args": []byte(quoteArgs(args)),
		"etc/rum/script":     []byte(r.Script),
		"etc/passwd":         []byte("root:x:0:0:root:/root:/bin/sh\n"),
		"etc/group":          []byte("root:x:0:\n"),
		"etc/hosts":          []byte("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 " + hostname + "\n"),
	}
	files := maps.Clone(r.Files)
	if files == nil {
		files = map[string]string{}
	}
	files["bin/busybox"] = busybox
	if r.Agent != "" {
		files[GuestAgent] = r.Agent
	}
	for guest, host := range files {
		body, err := os.ReadFile(host)
		if err != nil {
			return nil, err
		}
		entries[strings.TrimPrefix(path.Clean(guest), "/")] = body
	}

	set, err := openModules(k.Modules)
	if err != nil {
		return nil, err
	}
	order, err := set.closure(slices.Concat(baseModules, r.Modules)...)
	if err != nil {
		return nil, err
	}
	var list strings.Builder
	for _, file := range order {
		name := moduleName(file) + ".ko"
		fmt.Fprintln(&list, name)
		if entries["lib/modules/"+name], err = set.read(ctx, file); err != nil {
			return nil, fmt.Errorf("read module %s: %w", filepath.Base(file), err)
		}
	}
	entries["etc/rum/modules"] = []byte(list.String())
	return entries, nil
}

// quoteArgs writes arguments as a shell reads them back.
func quoteArgs(args []string) string {
	var b strings.Builder
	for _, arg := range args {
		fmt.Fprintf(&b, "'%s' ", strings.ReplaceAll(arg, "'", `'\''`))
	}
	return b.String()
}
