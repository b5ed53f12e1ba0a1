package integration

import (
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/status"
	"golang.org/x/sys/unix"
)

// As Chrome has them for SSDP, avahi for mDNS, dhclient and Samba for broadcasts.
func TestAMulticastOrBroadcastSocketLeavesTheOtherPortsForwarded(t *testing.T) {
	g := newGuest(t, "dev")
	g.joined(t) // 192.0.2.0/24
	h := startHost(t, "", g)
	greet(g.listen(t, "0.0.0.0:8080"), "before")
	h.awaitForward(t, "dev", 8080, "active", active)
	sockets := map[string]string{
		"239.255.255.250:1900": "a multicast address", "[ff02::fb]:5353": "a multicast address",
		"255.255.255.255:7068": "a broadcast address", "127.255.255.255:7069": "a broadcast address", "192.0.2.255:7138": "a broadcast address",
	}
	for addr := range sockets {
		g.bindUDP(t, netip.MustParseAddrPort(addr))
	}
	greet(g.listen(t, "0.0.0.0:8081"), "after")
	h.awaitForward(t, "dev", 8081, "active", active)
	if !answers("127.0.0.1:8080", "before") || !answers("127.0.0.1:8081", "after") {
		t.Error("the ports are not forwarded")
	}
	if vm := h.vm(t, "dev"); vm.State != status.Connected || vm.Error != "" || strings.Contains(g.agent.log.String(), "host disconnected") {
		t.Errorf("the link has ended: %+v", vm)
	}
	var out []byte
	g.do(t, func() (err error) {
		out, err = exec.Command(filepath.Join(bin, "rum-guest-agent"), "ports").CombinedOutput()
		return err
	})
	for addr, why := range sockets {
		shown := false
		for line := range strings.Lines(string(out)) {
			shown = shown || strings.Contains(line, addr) && strings.Contains(line, "not announced: "+why)
		}
		if !shown {
			t.Errorf("rum-guest-agent ports does not say that %s is %s:\n%s", addr, why, out)
		}
	}
}

// bindUDP binds a socket in the namespace to the very address; package net would
// take the wildcard for a multicast one.
func (ns *namespace) bindUDP(t *testing.T, addr netip.AddrPort) {
	t.Helper()
	ns.bind(t, unix.SOCK_DGRAM, addr, "")
}

// bind binds a socket in the namespace, with no options but the interface, if that
// is named, and lets a TCP one listen.
func (ns *namespace) bind(t *testing.T, kind int, addr netip.AddrPort, device string) (fd int) {
	t.Helper()
	family, at := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()})
	if addr.Addr().Is4() {
		family, at = unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	} else if addr.Addr().IsMulticast() {
		at.(*unix.SockaddrInet6).ZoneId = 1 // lo
	}
	ns.do(t, func() (err error) {
		if fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		if device != "" {
			err = unix.BindToDevice(fd, device)
		}
		if err == nil {
			err = unix.Bind(fd, at)
		}
		if err == nil && kind == unix.SOCK_STREAM {
			err = unix.Listen(fd, 10)
		}
		return err
	})
	return fd
}
