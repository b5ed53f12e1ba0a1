package libvirt

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ChannelName is the virtio-serial port that carries the agents' link where vsock is not to be had.
const ChannelName = "rum.agent.0"

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

// guest is what a live domain definition says about reaching the VM.
type guest struct {
	cid     uint32 // 0 for none
	channel string // host path of the agent channel's socket; empty for none
	nics    []nic
	ports   []HostPort
	images  []string // files in its drives
}

type nic struct {
	mac     string // lower case
	network string // libvirt network, if the NIC is on one
}

// parseGuest reads a domain definition.
func parseGuest(xml string) (guest, error) {
	dom, err := parseDomain(xml)
	if err != nil {
		return guest{}, err
	}
	g := guest{ports: hostPorts(&dom)}
	for _, v := range dom.VSocks {
		g.cid = parseCID(v.CID.Address)
	}
	for _, ch := range dom.Channels {
		if isAgentChannel(ch) && ch.Type == "unix" && ch.Source.Mode != "connect" && filepath.IsAbs(ch.Source.Path) {
			g.channel = ch.Source.Path
		}
	}
	for _, disk := range dom.Disks {
		if disk.Source.File != "" {
			g.images = append(g.images, disk.Source.File)
		}
	}
	for _, iface := range dom.Interfaces {
		g.nics = append(g.nics, nic{mac: strings.ToLower(iface.MAC.Address), network: iface.Source.Network})
	}
	return g, nil
}

func isAgentChannel(ch channelDef) bool {
	return ch.Target.Type == "virtio" && ch.Target.Name == ChannelName
}

// parseCID returns 0 for what is no guest's CID: linux/vm_sockets.h reserves 0 to 2 and the largest number.
func parseCID(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n < 3 || n == math.MaxUint32 {
		return 0
	}
	return uint32(n)
}

// endpoint prefers vsock, where every forwarded connection gets one of its own.
func (g guest) endpoint(hasVsock bool) (endpoint, problem string) {
	switch {
	case g.cid != 0 && hasVsock:
		return fmt.Sprintf("vsock:%d", g.cid), ""
	case g.channel != "":
		return "serial:" + g.channel, ""
	case g.cid != 0:
		return "", "the domain has a vsock device, but this host has no " + vsockDevice + ": run 'modprobe vhost_vsock'"
	default:
		return "", "the domain has neither a vsock device nor a " + ChannelName + " channel"
	}
}

const vsockDevice = "/dev/vhost-vsock"

// hostHasVsock says whether QEMU can give a guest a vsock device here. The node exists before the module is loaded, and
// opening it loads the module.
func hostHasVsock() bool {
	_, err := os.Stat(vsockDevice)
	return err == nil
}

func sortDomains(domains []Domain) {
	slices.SortFunc(domains, func(a, b Domain) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.UUID, b.UUID))
	})
}
