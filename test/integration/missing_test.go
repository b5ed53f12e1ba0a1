package integration

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// A VPN that is left, an interface that comes up.
func TestHostAddressesThatComeBackAreBound(t *testing.T) {
	const setting = "/proc/sys/net/ipv6/conf/lo/disable_ipv6"
	ipv6 := func(off string) {
		t.Helper()
		if err := os.WriteFile(setting, []byte(off), 0); err != nil {
			t.Fatal(err)
		}
	}
	g := newGuest(t, "dev")
	greet(g.listen(t, "0.0.0.0:8300"), "local")
	echoUDP(g.listenUDP(t, "0.0.0.0:8300"))
	greet(g.listen(t, "0.0.0.0:8301"), "elsewhere")
	ipv6("1")
	defer ipv6("0")
	h := startHostRules(t, g, "[[ports]]\nguest = 8301\nhost_ip = \"203.0.113.9\"\n")
	lacks := func(addr string) func(status.Forward) bool {
		return func(f status.Forward) bool { return f.Reason == addr+": this host has no such address now" }
	}
	h.awaitForward(t, "dev", 8300, "active without IPv6", func(f status.Forward) bool { return active(f) && lacks("[::1]:8300")(f) })
	h.awaitForward(t, "dev", 8301, "a claim", func(f status.Forward) bool {
		return f.State == status.Claim && strings.HasPrefix(f.Reason, "203.0.113.9:8301: this host has no such address now")
	})
	if !answers("127.0.0.1:8300", "local") {
		t.Error("127.0.0.1 does not answer")
	}
	ipv6("0")
	whole := func(f status.Forward) bool {
		return active(f) && f.Reason == "" && slices.Contains(f.Listening, "[::1]:8300")
	}
	h.awaitForward(t, "dev", 8300, "whole", whole)
	h.udpForward(t, "dev", 8300, whole)
	if !answers("[::1]:8300", "local") {
		t.Error("[::1] does not answer")
	}
	if err := command("ip", "addr", "add", "203.0.113.9/32", "dev", "lo"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = command("ip", "addr", "del", "203.0.113.9/32", "dev", "lo") }()
	h.awaitForward(t, "dev", 8301, "active", active)
	if !answers("203.0.113.9:8301", "elsewhere") {
		t.Error("203.0.113.9 does not answer")
	}
}

func TestHostAddressesThatGoAreShownAndBoundAgain(t *testing.T) {
	ipv6 := func(off string) {
		t.Helper()
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte(off), 0); err != nil {
			t.Fatal(err)
		}
	}
	address := func(what string) error { return command("ip", "addr", what, "203.0.113.8/32", "dev", "lo") }
	if err := address("add"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = address("del") }()
	defer ipv6("0")
	g := newGuest(t, "dev")
	greet(g.listen(t, "0.0.0.0:8310"), "local")
	echoUDP(g.listenUDP(t, "0.0.0.0:8310"))
	greet(g.listen(t, "0.0.0.0:8311"), "elsewhere")
	h := startHostRules(t, g, "[[ports]]\nguest = 8311\nhost_ip = \"203.0.113.8\"\n")
	whole := func(f status.Forward) bool {
		return active(f) && f.Reason == "" && slices.Contains(f.Listening, "[::1]:8310")
	}
	serves := func() {
		t.Helper()
		h.awaitForward(t, "dev", 8310, "whole", whole)
		h.udpForward(t, "dev", 8310, whole)
		h.awaitForward(t, "dev", 8311, "active", active)
		for at, hello := range map[string]string{"127.0.0.1:8310": "local", "[::1]:8310": "local", "203.0.113.8:8311": "elsewhere"} {
			if !answers(at, hello) {
				t.Errorf("%s does not answer", at)
			}
		}
		if err := asks(dialUDP(t, "[::1]:8310"), []byte("hello"), 5*time.Second); err != nil {
			t.Error(err)
		}
	}
	serves()
	client := dialUDP(t, "127.0.0.1:8310")
	ipv6("1")
	if err := address("del"); err != nil {
		t.Fatal(err)
	}
	half := func(f status.Forward) bool {
		return active(f) && f.Reason == "[::1]:8310: this host has no such address now" &&
			!slices.Contains(f.Host, "[::1]:8310") && !slices.Contains(f.Listening, "[::1]:8310")
	}
	h.awaitForward(t, "dev", 8310, "active without IPv6", half)
	h.udpForward(t, "dev", 8310, half)
	h.awaitForward(t, "dev", 8311, "a claim", func(f status.Forward) bool {
		return f.State == status.Claim && strings.HasPrefix(f.Reason, "203.0.113.8:8311: this host has no such address now")
	})
	if !answers("127.0.0.1:8310", "local") {
		t.Error("127.0.0.1 does not answer")
	}
	if err := asks(client, []byte("hello"), 5*time.Second); err != nil {
		t.Errorf("127.0.0.1: %v", err)
	}
	if f := h.udpForward(t, "dev", 8310, active); f.LastError != "" {
		t.Errorf("a socket that was closed is no error: %s", f.LastError)
	}

	ipv6("0")
	if err := address("add"); err != nil {
		t.Fatal(err)
	}
	serves()
}
