package config

import (
	"net/netip"

	"github.com/rum-vm/rum-agent/portwatch"
)

// noise is what hardly anybody wants on the host, or what must not be there:
// the host has its own. Port numbers are those of the IANA registry.
var noise = []struct {
	proto  Proto
	ports  Ports
	reason string
}{
	{TCP, Ports{22, 22}, "the guest's ssh"},
	{UDP, Ports{67, 68}, "DHCP"},
	{UDP, Ports{546, 547}, "DHCPv6"},
	{UDP, Ports{123, 123}, "NTP"},
	{UDP, Ports{323, 323}, "chrony's control port"},
	{UDP, Ports{5353, 5353}, "mDNS"},
	{Any, Ports{5355, 5355}, "LLMNR"},
}

// What systemd-resolved listens on (systemd-resolved.service(8)).
var (
	resolvedStub  = netip.AddrFrom4([4]byte{127, 0, 0, 53})
	resolvedProxy = netip.AddrFrom4([4]byte{127, 0, 0, 54})
)

const (
	dnsPort = 53
	noiseBy = "; a rule that names the port forwards it"
)

// noiseReason says why a listener is kept in the guest by default; "" if it is
// not.
func noiseReason(l portwatch.Listener) string {
	if l.Addr.Port() == dnsPort && isStub(l) {
		return "a DNS stub" + noiseBy
	}
	for _, n := range noise {
		if n.proto.Has(l.Proto) && n.ports.Has(l.Addr.Port()) {
			return n.reason + noiseBy
		}
	}
	return ""
}

// isStub knows the resolvers that serve the guest itself and its containers.
// Another server on the port is somebody's work.
func isStub(l portwatch.Listener) bool {
	switch l.Addr.Addr() {
	case resolvedStub, resolvedProxy:
		return true
	}
	switch processName(l.Process) {
	case "systemd-resolve", "dnsmasq": // as the kernel cuts systemd-resolved off
		return true
	}
	return false
}
