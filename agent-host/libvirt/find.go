package libvirt

import (
	"context"
	"fmt"

	golibvirt "github.com/digitalocean/go-libvirt"
)

// Find returns a domain by name or UUID. Its BridgeIP is an address on any of its networks that the host is on too. The
// error wraps [ErrNoDomain] where there is none.
func (c *Conn) Find(ctx context.Context, domain string) (Domain, error) {
	defer c.Bound(ctx, refreshLimit)()
	dom, err := c.Lookup(domain)
	if err != nil {
		return Domain{}, err
	}
	d, err := c.inspect(dom, view{hasVsock: HostHasVsock, neighbours: hostNeighbours(), onLink: onLink()})
	if golibvirt.IsNotFound(err) {
		return d, fmt.Errorf("%w: %s", ErrNoDomain, domain)
	}
	return d, err
}
