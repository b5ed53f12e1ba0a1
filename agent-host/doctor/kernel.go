package doctor

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
)

const (
	nameVsock    = "vsock"
	nameSettings = "vsock settings"
	namePorts    = "low ports"
)

// wantsVsock reports whether a VM is, or may be, reached over vsock here: not where an agent serves others alone.
func (x *exam) wantsVsock() bool {
	return x.agentErr != nil || len(x.daemons()) > 0 || slices.ContainsFunc(x.agent.VMs, func(vm status.VM) bool {
		return strings.HasPrefix(vm.Endpoint, endpoint.SchemeVsock+":")
	})
}

// vsockDevice looks for what QEMU gives a guest its vsock device by.
func vsockDevice(_ context.Context, x *exam) []status.Check {
	if !x.wantsVsock() {
		return nil
	}
	path := x.path(libvirt.VsockDevice)
	_, err := os.Stat(path)
	switch {
	case err != nil && x.hasModule("vhost_vsock"):
		return []status.Check{ill(nameVsock, "load it with: sudo modprobe vhost_vsock; and at each boot: echo vhost_vsock | sudo tee /etc/modules-load.d/vhost_vsock.conf",
			"there is no %s: the module vhost_vsock is not loaded, and VMs get no vsock device", libvirt.VsockDevice)}
	case err != nil:
		return []status.Check{well(nameVsock, "this kernel has no vhost_vsock: VMs are reached over virtio-serial, one connection for all")}
	case x.userRunsQEMU() && unix.Access(path, unix.R_OK|unix.W_OK) != nil:
		return []status.Check{ill(nameVsock, "let this user open it with: sudo setfacl -m u:"+strconv.Itoa(os.Getuid())+":rw "+libvirt.VsockDevice,
			"this user may not open %s, and libvirt's session daemon runs its VMs as this user", libvirt.VsockDevice)}
	}
	return []status.Check{well(nameVsock, "%s is there", libvirt.VsockDevice)}
}

// hasModule reports whether the kernel that runs has a module that could be loaded.
func (x *exam) hasModule(name string) bool {
	release, err := os.ReadFile(x.path("/proc/sys/kernel/osrelease"))
	if err != nil {
		return false
	}
	index, err := os.ReadFile(filepath.Join(x.path("/lib/modules"), strings.TrimSpace(string(release)), "modules.dep"))
	return err == nil && bytes.Contains(index, []byte("/"+name+".ko"))
}

// userRunsQEMU reports whether VMs belong to this user, and not to the system.
func (x *exam) userRunsQEMU() bool {
	uris := x.daemons()
	return len(uris) > 0 && !slices.ContainsFunc(uris, func(uri string) bool { return libvirt.DaemonOf(uri) != libvirt.SessionURI })
}

// ofGuests are modules by which this machine is a guest itself, and reaches the hypervisor below.
var ofGuests = []string{"vmw_vsock_virtio_transport", "vmw_vsock_vmci_transport", "hv_sock"}

// vsockSettings looks at net.vsock, which kernels have since 7.0.
func vsockSettings(_ context.Context, x *exam) (all []status.Check) {
	if !x.wantsVsock() {
		return nil
	}
	if mode := x.setting("net/vsock/ns_mode"); mode == "local" {
		all = append(all, ill(nameSettings, "run the agent where the VMs run, or have new namespaces see them with: sudo sysctl -w net.vsock.child_ns_mode=global",
			"net.vsock.ns_mode is local: this network namespace does not see the VMs of others"))
	}
	if x.setting("net/vsock/g2h_fallback") == "1" && slices.ContainsFunc(ofGuests, func(m string) bool {
		_, err := os.Stat(x.path("/sys/module/" + m))
		return err == nil
	}) {
		all = append(all, ill(nameSettings, "switch it off with: sudo sysctl -w net.vsock.g2h_fallback=0",
			"net.vsock.g2h_fallback is on, and this machine is a VM: what is meant for a VM that is off goes to the hypervisor below"))
	}
	if all == nil {
		all = append(all, well(nameSettings, "none is in the way"))
	}
	return all
}

// setting is one of the kernel's; empty where it has none of that name.
func (x *exam) setting(name string) string {
	text, _ := os.ReadFile(x.path("/proc/sys/" + name))
	return strings.TrimSpace(string(text))
}

// privilegedPorts tells from which port on this user may have them. A rule that wants a lower one is found with its port.
func privilegedPorts(_ context.Context, x *exam) []status.Check {
	first, err := strconv.Atoi(x.setting("net/ipv4/ip_unprivileged_port_start"))
	switch {
	case mayHaveAnyPort():
		return []status.Check{well(namePorts, "this user may have every port of the host")}
	case err != nil || first > 1024:
		return []status.Check{ill(namePorts, "allow it with: sudo sysctl -w net.ipv4.ip_unprivileged_port_start=1024",
			"this user may have ports of the host from %d on only", first)}
	}
	return []status.Check{well(namePorts, "this user may have ports of the host from %d on", first)}
}

// mayHaveAnyPort reports whether this process has the capability to bind to low ports.
func mayHaveAnyPort() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	return unix.Capget(&header, &caps[0]) == nil && caps[0].Effective&(1<<unix.CAP_NET_BIND_SERVICE) != 0
}
