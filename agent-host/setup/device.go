package setup

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"libvirt.org/go/libvirtxml"
)

// device is a device to add to a domain.
type device struct {
	kind  string // name of its element
	what  string // for a person
	alias string // if it can take the place of an older one
	xml   string
}

type marshaler interface{ Marshal() (string, error) }

func newDevice(kind, what string, m marshaler) (device, error) {
	text, err := m.Marshal()
	if err != nil {
		return device{}, fmt.Errorf("writing the XML of %s: %w", what, err)
	}
	return device{kind: kind, what: what, xml: tidy(text)}, nil
}

var emptyElement = regexp.MustCompile(`<([A-Za-z]+(?: [^<>]*[^<>/])?)></[A-Za-z]+>`)

// tidy writes XML as libvirt does: empty elements closed in their tag, and single quotes. Nothing that setup writes has a
// quote or an empty text of its own.
func tidy(text string) string {
	return strings.ReplaceAll(emptyElement.ReplaceAllString(text, `<$1/>`), `"`, "'")
}

func nicDevice(name, network, mac string) (device, error) {
	return newDevice("interface", fmt.Sprintf("NIC %s on network %s", mac, network), &libvirtxml.DomainInterface{
		MAC:    &libvirtxml.DomainInterfaceMAC{Address: mac},
		Source: &libvirtxml.DomainInterfaceSource{Network: &libvirtxml.DomainInterfaceSourceNetwork{Network: network}},
		Model:  &libvirtxml.DomainInterfaceModel{Type: "virtio"},
		Alias:  &libvirtxml.DomainAlias{Name: libvirt.AliasPrefix + name},
	})
}

func vsockDeviceXML() (device, error) {
	return newDevice("vsock", "vsock device with a CID chosen at each start", &libvirtxml.DomainVSock{
		Model: "virtio",
		CID:   &libvirtxml.DomainVSockCID{Auto: "yes"},
		Alias: &libvirtxml.DomainAlias{Name: libvirt.AliasPrefix + "vsock"},
	})
}

func channelDevice() (device, error) {
	return newDevice("channel", "agent channel "+libvirt.ChannelName, &libvirtxml.DomainChannel{
		Source: &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{Mode: "bind"}},
		Target: &libvirtxml.DomainChannelTarget{VirtIO: &libvirtxml.DomainChannelTargetVirtIO{Name: libvirt.ChannelName}},
		Alias:  &libvirtxml.DomainAlias{Name: libvirt.AliasPrefix + "channel"},
	})
}

// deviceMAC derives a MAC address from the domain's UUID, so that a domain that loses its NIC and gets it again keeps its
// lease. 52:54:00 is the prefix that libvirt gives QEMU's NICs. Addresses in use are passed over.
func deviceMAC(uuid, which string, inUse map[string]bool) string {
	for n := 0; ; n++ {
		h := sha256.Sum256(fmt.Appendf(nil, "%s %s %d", uuid, which, n))
		mac := fmt.Sprintf("52:54:00:%02x:%02x:%02x", h[0], h[1], h[2])
		if !inUse[mac] {
			return mac
		}
	}
}
