package serve

import (
	"fmt"
	"net"

	proxyproto "github.com/pires/go-proxyproto"
	"github.com/rum-vm/rum-agent/tunnel/relay"
)

// proxyHeader is what a service is told of its client before anything else, in version
// 2 of the PROXY protocol. Of a client on a unix socket there is no address to tell:
// LOCAL has the service take the connection for what it looks like.
func proxyHeader(c *relay.Client) ([]byte, error) {
	h := proxyproto.Header{Version: 2, Command: proxyproto.LOCAL}
	if from, to := c.From(), c.To(); from.IsValid() && to.IsValid() {
		h.Command = proxyproto.PROXY
		h.SourceAddr, h.DestinationAddr = net.TCPAddrFromAddrPort(from), net.TCPAddrFromAddrPort(to)
		h.TransportProtocol = proxyproto.TCPv4
		if from.Addr().Is6() {
			h.TransportProtocol = proxyproto.TCPv6
		}
	}
	b, err := h.Format()
	if err != nil {
		return nil, fmt.Errorf("tell the service its client: %w", err)
	}
	return b, nil
}
