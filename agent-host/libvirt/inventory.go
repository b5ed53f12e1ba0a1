package libvirt

import (
	"fmt"

	golibvirt "github.com/digitalocean/go-libvirt"
)

// nicUse is a NIC of some domain.
type nicUse struct {
	nic
	domain, uuid string
}

// allNICs lists the NICs of every domain, as defined and as running.
func (c *Conn) allNICs() ([]nicUse, error) {
	doms, _, err := c.lv.ConnectListAllDomains(1, golibvirt.ConnectListDomainsActive|golibvirt.ConnectListDomainsInactive)
	if err != nil {
		return nil, fmt.Errorf("listing domains: %w", err)
	}
	var uses []nicUse
	for _, dom := range doms {
		for _, flags := range []golibvirt.DomainXMLFlags{0, golibvirt.DomainXMLInactive} {
			text, err := c.lv.DomainGetXMLDesc(dom, flags)
			if golibvirt.IsNotFound(err) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("domain %s: %w", dom.Name, err)
			}
			g, err := parseGuest(text)
			if err != nil {
				// Without its NICs, a network that it is on would look free to be removed.
				return nil, fmt.Errorf("domain %s: %w", dom.Name, err)
			}
			for _, n := range g.nics {
				uses = append(uses, nicUse{n, dom.Name, formatUUID(dom.UUID)})
			}
		}
	}
	return uses, nil
}

// macOwners maps MAC addresses to the names of their domains.
func (c *Conn) macOwners() (map[string]string, error) {
	nics, err := c.allNICs()
	if err != nil {
		return nil, err
	}
	owners := map[string]string{}
	for _, n := range nics {
		owners[n.mac] = n.domain
	}
	return owners, nil
}
