package libvirt

import (
	"cmp"
	"encoding/xml"
	"fmt"
)

// What is read of libvirt's definitions, and no more: a newer libvirt has words and elements that no list of today
// knows, and everything is text here, so that none of them hides the rest. What setup writes is made by libvirtxml.

// domainDef is a domain's definition.
type domainDef struct {
	Interfaces []interfaceDef `xml:"devices>interface"`
	Channels   []channelDef   `xml:"devices>channel"`
	Disks      []diskDef      `xml:"devices>disk"`
	VSocks     []vsockDef     `xml:"devices>vsock"`
	Arguments  []struct {
		Value string `xml:"value,attr"`
	} `xml:"commandline>arg"` // in QEMU's namespace
}

type interfaceDef struct {
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

type diskDef struct {
	Device string `xml:"device,attr"`
	Driver struct {
		Type string `xml:"type,attr"`
	} `xml:"driver"`
	Source diskSource `xml:"source"`
	Target struct {
		Dev string `xml:"dev,attr"`
	} `xml:"target"`
	Alias struct {
		Name string `xml:"name,attr"`
	} `xml:"alias"`
}

type diskSource struct {
	File   string `xml:"file,attr"`
	Dev    string `xml:"dev,attr"`
	Volume string `xml:"volume,attr"`
}

// name is for a person; empty for a drive without a medium, and for one on the network.
func (s diskSource) name() string { return cmp.Or(s.File, s.Dev, s.Volume) }

// firstDisk is the source of the first disk that is no drive and not setup's; empty for none.
func (d *domainDef) firstDisk() string {
	for _, disk := range d.Disks {
		if (disk.Device == "" || disk.Device == "disk") && disk.Alias.Name != seedAlias {
			return disk.Source.name()
		}
	}
	return ""
}

type vsockDef struct {
	CID struct {
		Address string `xml:"address,attr"`
	} `xml:"cid"`
}

func parseDomain(text string) (domainDef, error) {
	var def domainDef
	if err := xml.Unmarshal([]byte(text), &def); err != nil {
		return def, fmt.Errorf("reading the domain definition: %w", err)
	}
	return def, nil
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
