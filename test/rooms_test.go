package test

import (
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rum-vm/rum-agent/"

// What each package may know of ours, directly or not. The commands, which are not here,
// may know whatever is not the other agent's.
var rooms = map[string][]string{
	"portwatch":            {"portwatch/netevents"},
	"cloudinit":            {"tunnel/keyfile"},
	"tunnel/announce":      {"portwatch", "portwatch/netevents", "tunnel/wire"},
	"tunnel/budget":        nil,
	"tunnel/clock":         nil,
	"tunnel/dial":          {"portwatch", "portwatch/netevents", "tunnel/budget", "tunnel/clock", "tunnel/mux", "tunnel/relay", "tunnel/udp", "tunnel/wire"},
	"tunnel/handshake":     {"portwatch", "portwatch/netevents", "tunnel/wire"},
	"tunnel/keyfile":       nil,
	"tunnel/mux":           {"tunnel/budget", "tunnel/clock"},
	"tunnel/peerlog":       nil,
	"tunnel/relay":         {"tunnel/budget", "tunnel/clock", "tunnel/mux"},
	"tunnel/stream":        {"portwatch", "portwatch/netevents", "tunnel/budget", "tunnel/clock", "tunnel/mux", "tunnel/relay", "tunnel/wire"},
	"tunnel/udp":           {"portwatch", "portwatch/netevents", "tunnel/budget", "tunnel/clock", "tunnel/wire"},
	"tunnel/wire":          {"portwatch", "portwatch/netevents"},
	"tunnel/endpoint":      {"portwatch", "portwatch/netevents", "tunnel/budget", "tunnel/clock", "tunnel/wire"},
	"tunnel":               {"portwatch", "portwatch/netevents", "tunnel/announce", "tunnel/budget", "tunnel/clock", "tunnel/dial", "tunnel/endpoint", "tunnel/handshake", "tunnel/mux", "tunnel/relay", "tunnel/stream", "tunnel/udp", "tunnel/wire"},
	"agent-host":           {"agent-host/config", "agent-host/filewatch", "agent-host/forward", "agent-host/keys", "agent-host/libvirt", "agent-host/setup", "agent-host/status", "portwatch", "portwatch/nat", "portwatch/netevents", "tunnel", "tunnel/announce", "tunnel/budget", "tunnel/clock", "tunnel/dial", "tunnel/endpoint", "tunnel/handshake", "tunnel/keyfile", "tunnel/mux", "tunnel/relay", "tunnel/stream", "tunnel/udp", "tunnel/wire"},
	"agent-host/config":    {"agent-host/filewatch", "portwatch", "portwatch/netevents", "tunnel/keyfile"},
	"agent-host/filewatch": nil,
	"agent-host/keys":      {"tunnel/keyfile"},
	"agent-host/projects":  {"agent-host/config", "agent-host/filewatch", "agent-host/shellword", "portwatch", "portwatch/netevents", "tunnel/keyfile"},
	"agent-host/shellword": nil,
	"agent-host/status":    nil,
	"agent-host/control":   {"agent-host/status"},
	"agent-host/forward":   {"agent-host/status", "portwatch", "portwatch/netevents", "tunnel", "tunnel/announce", "tunnel/budget", "tunnel/clock", "tunnel/dial", "tunnel/endpoint", "tunnel/handshake", "tunnel/mux", "tunnel/relay", "tunnel/stream", "tunnel/udp", "tunnel/wire"},
	"agent-host/libvirt":   nil,
	"agent-host/qga":       {"agent-host/libvirt"},
	"agent-host/setup":     {"agent-host/libvirt", "portwatch/nat", "portwatch/netevents", "tunnel/keyfile"},
	"portwatch/nat":        {"portwatch/netevents"},
	"portwatch/netevents":  nil,
	"agent-guest":          {"portwatch", "portwatch/nat", "portwatch/netevents", "tunnel", "tunnel/announce", "tunnel/budget", "tunnel/clock", "tunnel/dial", "tunnel/endpoint", "tunnel/handshake", "tunnel/mux", "tunnel/relay", "tunnel/stream", "tunnel/udp", "tunnel/wire"},
}

// Libraries that only some may import.
var libraries = map[string][]string{
	"github.com/BurntSushi/toml":         {"agent-host/config"},
	"github.com/digitalocean/go-libvirt": {"agent-host/libvirt", "agent-host/qga", "agent-host/setup"},
	"github.com/diskfs/go-diskfs":        {"cloudinit"},
	"github.com/google/nftables":         {"portwatch/nat"},
	"github.com/mdlayher/vsock":          {"tunnel/endpoint"},
	"github.com/spf13/cobra":             {"agent-host/cmd/rum-host-agent"},
	"libvirt.org/go/libvirtxml":          {"agent-host/setup"},
}

// packages returns what go list says of ours that are no tests' own: the first word is the
// package, and the others are what the field has. Of our names the module's is left out.
func packages(t *testing.T, field string) (all [][]string) {
	t.Helper()
	lookAtSources(t)
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join ."+field+" \" \"}}", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(strings.ReplaceAll(string(out), module, "")) {
		if words := strings.Fields(line); words[0] != "test" && !strings.HasPrefix(words[0], "test/") {
			all = append(all, words)
		}
	}
	return all
}

// lookAtSources opens every folder, so that go test, which does not see what other programs
// read, takes no earlier result for one of today.
func lookAtSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPackagesKnowOnlyWhatIsBelowThem(t *testing.T) {
	all := packages(t, "Deps")
	ours := func(dep string) bool {
		return slices.ContainsFunc(all, func(p []string) bool { return p[0] == dep })
	}
	for _, p := range all {
		room, deps := p[0], slices.DeleteFunc(p[1:], func(dep string) bool { return !ours(dep) })
		below, known := rooms[room]
		switch agent, _, command := strings.Cut(room, "/cmd/"); {
		case command:
			other := map[string]string{"agent-host": "agent-guest", "agent-guest": "agent-host"}[agent]
			if i := slices.IndexFunc(deps, func(dep string) bool { return strings.HasPrefix(dep, other) }); i >= 0 || other == "" {
				t.Errorf("%s knows of %v", room, deps)
			}
		case !known:
			t.Errorf("%s has no row in the table of rooms", room)
		default:
			for _, dep := range deps {
				if !slices.Contains(below, dep) {
					t.Errorf("%s knows of %s", room, dep)
				}
			}
		}
	}
}

func TestLibrariesAreImportedOnlyWhereTheyBelong(t *testing.T) {
	for _, p := range packages(t, "Imports") {
		for _, path := range p[1:] {
			for library, rooms := range libraries {
				if (path == library || strings.HasPrefix(path, library+"/")) && !slices.Contains(rooms, p[0]) {
					t.Errorf("%s imports %s", p[0], path)
				}
			}
		}
	}
}
