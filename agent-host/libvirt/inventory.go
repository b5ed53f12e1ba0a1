package libvirt

import (
	"fmt"

	golibvirt "github.com/digitalocean/go-libvirt"
)

// DomainNIC is a NIC and whose it is.
type DomainNIC struct {
	NIC
	Domain, UUID string
}

// NICs lists the NICs of every domain, as defined and as running.
func (c *Conn) NICs() ([]DomainNIC, error) {
	doms, _, err := c.lv.ConnectListAllDomains(1, golibvirt.ConnectListDomainsActive|golibvirt.ConnectListDomainsInactive)
	if err != nil {
		return nil, fmt.Errorf("listing domains: %w", err)
	}
	var uses []DomainNIC
	for _, dom := range doms {
		for _, flags := range []golibvirt.DomainXMLFlags{0, golibvirt.DomainXMLInactive} {
			text, err := c.lv.DomainGetXMLDesc(dom, flags)
			if golibvirt.IsNotFound(err) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("domain %s: %w", dom.Name, err)
			}
			def, err := ParseDefinition(text)
			if err != nil {
				// Without its NICs, a network that it is on would look free to be removed.
				return nil, fmt.Errorf("domain %s: %w", dom.Name, err)
			}
			for _, n := range def.NICs() {
				uses = append(uses, DomainNIC{n, dom.Name, FormatUUID(dom.UUID)})
			}
		}
	}
	return uses, nil
}

// macOwners maps MAC addresses to the names of their domains.
func (c *Conn) macOwners() (map[string]string, error) {
	nics, err := c.NICs()
	if err != nil {
		return nil, err
	}
	owners := map[string]string{}
	for _, n := range nics {
		owners[n.MAC] = n.Domain
	}
	return owners, nil
}
