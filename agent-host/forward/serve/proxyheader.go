package serve

import (
	"fmt"
	"net"
	"net/netip"

	proxyproto "github.com/pires/go-proxyproto"
)

// proxyHeader is what a service is told of its client before anything else, in version
// 2 of the PROXY protocol. Of a client on a unix socket there is no address to tell:
// LOCAL has the service take the connection for what it looks like.
func proxyHeader(from, to netip.AddrPort) ([]byte, error) {
	h := proxyproto.Header{Version: 2, Command: proxyproto.LOCAL}
	if from.IsValid() && to.IsValid() {
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
