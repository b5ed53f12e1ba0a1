package test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rum-vm/rum-agent/"

// What each package may know of ours, directly or not. A package that is not here may
// know whatever its job needs.
var rooms = map[string][]string{
	"portwatch":          {"portwatch/netevents"},
	"cloudinit":          {"tunnel/keyfile"},
	"tunnel/announce":    {"portwatch", "portwatch/netevents", "tunnel/wire"},
	"tunnel/budget":      nil,
	"tunnel/clock":       nil,
	"tunnel/dial":        {"portwatch", "portwatch/netevents", "tunnel/budget", "tunnel/clock", "tunnel/mux", "tunnel/relay", "tunnel/udp", "tunnel/wire"},
	"tunnel/handshake":   {"portwatch", "portwatch/netevents", "tunnel/wire"},
	"tunnel/keyfile":     nil,
	"tunnel/mux":         {"tunnel/budget", "tunnel/clock"},
	"tunnel/peerlog":     nil,
	"tunnel/relay":       {"tunnel/budget", "tunnel/clock", "tunnel/mux"},
	"tunnel/stream":      {"portwatch", "portwatch/netevents", "tunnel/budget", "tunnel/clock", "tunnel/mux", "tunnel/relay", "tunnel/wire"},
	"tunnel/udp":         {"portwatch", "portwatch/netevents", "tunnel/budget", "tunnel/clock", "tunnel/wire"},
	"tunnel/wire":        {"portwatch", "portwatch/netevents"},
	"tunnel/endpoint":    {"portwatch", "portwatch/netevents", "tunnel/budget", "tunnel/clock", "tunnel/wire"},
	"tunnel":             {"portwatch", "portwatch/netevents", "tunnel/announce", "tunnel/budget", "tunnel/clock", "tunnel/dial", "tunnel/endpoint", "tunnel/handshake", "tunnel/mux", "tunnel/relay", "tunnel/stream", "tunnel/udp", "tunnel/wire"},
	"agent-host/status":  nil,
	"agent-host/control": {"agent-host/status"},
	"agent-host/forward": {"agent-host/status", "portwatch", "portwatch/netevents", "tunnel", "tunnel/announce", "tunnel/budget", "tunnel/clock", "tunnel/dial", "tunnel/endpoint", "tunnel/handshake", "tunnel/mux", "tunnel/relay", "tunnel/stream", "tunnel/udp", "tunnel/wire"},
	"agent-host/libvirt": nil,
	"agent-host/qga":     {"agent-host/libvirt"},
	"agent-host/setup":   {"agent-host/libvirt", "portwatch/nat", "portwatch/netevents", "tunnel/keyfile"},
	"portwatch/nat":      {"portwatch/netevents"},
	"agent-guest":        {"portwatch", "portwatch/nat", "portwatch/netevents", "tunnel", "tunnel/announce", "tunnel/budget", "tunnel/clock", "tunnel/dial", "tunnel/endpoint", "tunnel/handshake", "tunnel/mux", "tunnel/relay", "tunnel/stream", "tunnel/udp", "tunnel/wire"},
}

func TestPackagesKnowOnlyWhatIsBelowThem(t *testing.T) {
	for room, below := range rooms {
		out, err := exec.Command("go", "list", "-deps", module+room).Output()
		if err != nil {
			t.Fatalf("%s: %v", room, err)
		}
		for _, dep := range strings.Fields(string(out)) {
			ours, found := strings.CutPrefix(dep, module)
			if found && ours != room && !slices.Contains(below, ours) {
				t.Errorf("%s knows of %s", room, ours)
			}
		}
	}
}
