package libvirt

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// What is read of libvirt's definitions, and no more: a newer libvirt has words and elements that no list of today
// knows, and everything is text here, so that none of them hides the rest.

// The marks of the package setup, by which what it added is known.
const (
	// AliasPrefix begins the aliases of the devices that setup added to a domain. libvirt keeps aliases that begin with
	// "ua-" for its users and drops all others.
	AliasPrefix = "ua-rum-"
	// SetupNamespace is the XML namespace of what setup notes in libvirt's metadata: on a network that setup made it, on a
	// domain which controllers libvirt had to add.
	SetupNamespace = "https://github.com/rum-vm/rum-agent/setup/1"
)

// ChannelName is the virtio-serial port that carries the agents' link where vsock is not to be had.
const ChannelName = "rum.agent.0"

// Definition is a domain's definition, stored or of the running VM.
type Definition struct {
	Interfaces []InterfaceDef `xml:"devices>interface"`
	Channels   []channelDef   `xml:"devices>channel"`
	Disks      []DiskDef      `xml:"devices>disk"`
	VSocks     []vsockDef     `xml:"devices>vsock"`
	Arguments  []struct {
		Value string `xml:"value,attr"`
	} `xml:"commandline>arg"` // in QEMU's namespace
}

// InterfaceDef is the definition of a NIC.
type InterfaceDef struct {
	MAC struct {
		Address string `xml:"address,attr"`
	} `xml:"mac"`
	Source struct {
		Network string `xml:"network,attr"`
	} `xml:"source"`
	PortForward []portForwardDef `xml:"portForward"`
}

type portForwardDef struct {
	Proto   string `xml:"proto,attr"`
	Address string `xml:"address,attr"`
	Ranges  []struct {
		Start   string `xml:"start,attr"`
		End     string `xml:"end,attr"`
		To      string `xml:"to,attr"`
		Exclude string `xml:"exclude,attr"`
	} `xml:"range"`
}

type channelDef struct {
	Source struct {
		Mode string `xml:"mode,attr"`
		Path string `xml:"path,attr"`
	} `xml:"source"`
	Target struct {
		Type string `xml:"type,attr"`
		Name string `xml:"name,attr"`
	} `xml:"target"`
	Type string `xml:"type,attr"`
}

// DiskDef is the definition of a disk or of a drive.
type DiskDef struct {
	Device string `xml:"device,attr"`
	Driver struct {
		Type string `xml:"type,attr"`
	} `xml:"driver"`
	Source DiskSource `xml:"source"`
	Target struct {
		Dev string `xml:"dev,attr"`
	} `xml:"target"`
	Alias struct {
		Name string `xml:"name,attr"`
	} `xml:"alias"`
}

// DiskSource is where a disk's content is; all are empty for a drive without a medium, and for a disk on the network.
type DiskSource struct {
	File   string `xml:"file,attr"`
	Dev    string `xml:"dev,attr"`
	Volume string `xml:"volume,attr"`
}

// Name is for a person; empty for a drive without a medium, and for one on the network.
func (s DiskSource) Name() string { return cmp.Or(s.File, s.Dev, s.Volume) }

type vsockDef struct {
	CID struct {
		Address string `xml:"address,attr"`
	} `xml:"cid"`
}

// ParseDefinition reads a domain's definition.
func ParseDefinition(text string) (*Definition, error) {
	var def Definition
	if err := xml.Unmarshal([]byte(text), &def); err != nil {
		return nil, fmt.Errorf("reading the domain definition: %w", err)
	}
	return &def, nil
}

// FirstDisk is the source of the first disk that is no drive and not setup's; empty for none.
func (d *Definition) FirstDisk() string {
	for _, disk := range d.Disks {
		if (disk.Device == "" || disk.Device == "disk") && !strings.HasPrefix(disk.Alias.Name, AliasPrefix) {
			return disk.Source.Name()
		}
	}
	return ""
}

// Images are the files in the domain's disks and drives.
func (d *Definition) Images() []string {
	var images []string
	for _, disk := range d.Disks {
		if disk.Source.File != "" {
			images = append(images, disk.Source.File)
		}
	}
	return images
}

// NIC is a network card of a domain.
type NIC struct {
	MAC     string // lower case
	Network string // libvirt network, if the NIC is on one
}

// NICs are the domain's NICs, in the order of the definition.
func (d *Definition) NICs() []NIC {
	var nics []NIC
	for _, i := range d.Interfaces {
		nics = append(nics, NIC{MAC: strings.ToLower(i.MAC.Address), Network: i.Source.Network})
	}
	return nics
}

// HasVsock reports whether the domain has a vsock device, with a CID or not yet.
func (d *Definition) HasVsock() bool { return len(d.VSocks) > 0 }

// CID is the domain's vsock address; 0 for none, as while it is off and its CID is chosen at each start.
func (d *Definition) CID() (cid uint32) {
	for _, v := range d.VSocks {
		cid = parseCID(v.CID.Address)
	}
	return cid
}

// parseCID returns 0 for what is no guest's CID: linux/vm_sockets.h reserves 0 to 2 and the largest number.
func parseCID(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n < 3 || n == math.MaxUint32 {
		return 0
	}
	return uint32(n)
}

// HasAgentChannel reports whether the domain has the agents' virtio-serial port.
func (d *Definition) HasAgentChannel() bool { return slices.ContainsFunc(d.Channels, isAgentChannel) }

// AgentSocket is the host's path of the agent channel's socket; empty for none, and while the domain is off.
func (d *Definition) AgentSocket() (path string) {
	for _, ch := range d.Channels {
		if isAgentChannel(ch) && ch.Type == "unix" && ch.Source.Mode != "connect" && filepath.IsAbs(ch.Source.Path) {
			path = ch.Source.Path
		}
	}
	return path
}

func isAgentChannel(ch channelDef) bool {
	return ch.Target.Type == "virtio" && ch.Target.Name == ChannelName
}

// networkDef is a network's definition.
type networkDef struct {
	Metadata struct {
		XML string `xml:",innerxml"`
	} `xml:"metadata"`
	Bridge struct {
		Name string `xml:"name,attr"`
	} `xml:"bridge"`
	Forward *struct {
		Mode string `xml:"mode,attr"`
	} `xml:"forward"`
	IPs []ipDef `xml:"ip"`
}

type ipDef struct {
	Address string `xml:"address,attr"`
	Prefix  string `xml:"prefix,attr"`
	Netmask string `xml:"netmask,attr"`
	Ranges  []struct {
		Start string `xml:"start,attr"`
		End   string `xml:"end,attr"`
	} `xml:"dhcp>range"`
}

func parseNetwork(text string) (networkDef, error) {
	var def networkDef
	if err := xml.Unmarshal([]byte(text), &def); err != nil {
		return def, fmt.Errorf("reading the definition: %w", err)
	}
	return def, nil
}
