package libvirt

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"slices"
)

// State is what a domain is doing.
type State string

const (
	// Running includes a domain that is shutting down.
	Running State = "running"
	// Paused includes a guest that suspended itself to memory. Its connections stay.
	Paused State = "paused"
	// Off is a defined domain that has no running VM.
	Off State = "off"
)

// Domain is a VM that a libvirt daemon knows. Values can be compared with ==.
type Domain struct {
	Name string
	// UUID is in the hyphenated lower-case form; it stays the same for the life of the definition.
	UUID  string
	State State
	// Boots counts the starts and reboots of this domain seen so far. When it differs from an earlier report, links to
	// the guest's former life are dead even if they look alive.
	Boots int
	// Endpoint is how the guest agent is reached: "vsock:CID" or "serial:PATH"; empty when the domain has neither, or is
	// off.
	Endpoint string
	// BridgeIP is the guest's address on the host-only network, or on another network of this host; the zero value when
	// none is known. The host has an interface on its subnet.
	BridgeIP netip.Addr
	// Disk is the file of its first disk; empty for none, and while it is off.
	Disk string
	// Problem says, with its remedy, why the domain cannot be served as it is; empty when it can.
	Problem string
}

// endpoint prefers vsock, where every forwarded connection gets one of its own.
func (d *Definition) endpoint(hasVsock bool) (endpoint, problem string) {
	cid, socket := d.CID(), d.AgentSocket()
	switch {
	case cid != 0 && hasVsock:
		return fmt.Sprintf("vsock:%d", cid), ""
	case socket != "":
		return "serial:" + socket, ""
	case cid != 0:
		return "", "the domain has a vsock device, but this host has no " + VsockDevice + ": run 'modprobe vhost_vsock'"
	default:
		return "", "the domain has neither a vsock device nor a " + ChannelName + " channel"
	}
}

// VsockDevice is what QEMU opens for a guest's vsock device.
const VsockDevice = "/dev/vhost-vsock"

// HostHasVsock says whether QEMU can give a guest a vsock device here. The node exists before the module is loaded, and
// opening it loads the module.
func HostHasVsock() bool {
	_, err := os.Stat(VsockDevice)
	return err == nil
}

func sortDomains(domains []Domain) {
	slices.SortFunc(domains, func(a, b Domain) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.UUID, b.UUID))
	})
}
