package test

import (
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rum-vm/rum-agent/"

// What each package may know of ours, with what that knows in turn. The commands, which
// are not here, may know whatever is not the other agent's.
var rooms = map[string][]string{
	"agent-guest":                  {"agent-guest/logring", "agent-guest/upgrade", "portwatch/nat", "portwatch/netns", "tunnel", "tunnel/socketpair"},
	"agent-guest/logring":          nil,
	"agent-guest/upgrade":          {"tunnel/builds", "tunnel/packagers", "tunnel/wire"},
	"agent-host":                   {"agent-host/added", "agent-host/backoff", "agent-host/explain", "agent-host/filewatch", "agent-host/forward", "agent-host/forwardrules", "agent-host/intake", "agent-host/keys", "agent-host/setup", "tunnel", "tunnel/builds", "tunnel/packagers", "tunnel/socketpair"},
	"agent-host/added":             {"agent-host/config", "agent-host/status"},
	"agent-host/ask":               {"agent-host/browser", "agent-host/control", "agent-host/output", "agent-host/projects", "agent-host/rulefile"},
	"agent-host/backoff":           nil,
	"agent-host/browser":           {"agent-host/events", "agent-host/status"},
	"agent-host/complete":          {"agent-host/control", "agent-host/output"},
	"agent-host/configfile":        {"agent-host/config", "agent-host/filewatch", "tunnel/keyfile"},
	"agent-host/config":            {"agent-host/config/position", "agent-host/config/spelling", "agent-host/remote/address", "portwatch/portlist"},
	"agent-host/config/position":   nil,
	"agent-host/config/spelling":   nil,
	"agent-host/control":           {"agent-host/events", "agent-host/status"},
	"agent-host/doctor":            {"agent-host/ask", "agent-host/explain", "agent-host/keys", "agent-host/libvirt", "agent-host/userconfig"},
	"agent-host/events":            nil,
	"agent-host/explain":           {"agent-host/shellword", "agent-host/status"},
	"agent-host/fdstore":           nil,
	"agent-host/filewatch":         nil,
	"agent-host/forwardrules":      {"agent-host/config", "agent-host/forward/reverse"},
	"agent-host/forward":           {"agent-host/events", "agent-host/forward/byport", "agent-host/forward/contest", "agent-host/forward/datagrams", "agent-host/forward/excerpt", "agent-host/forward/held", "agent-host/forward/reverse", "agent-host/forward/suggest", "agent-host/forward/told", "agent-host/forward/turns"},
	"agent-host/forward/byport":    {"agent-host/forward/policy"},
	"agent-host/forward/contest":   {"agent-host/forward/host"},
	"agent-host/forward/datagrams": {"agent-host/forward/serve"},
	"agent-host/forward/excerpt":   {"agent-host/status"},
	"agent-host/forward/held":      {"agent-host/forward/room"},
	"agent-host/forward/host":      {"agent-host/fdstore", "agent-host/forward/policy", "portwatch", "tunnel/endpoint", "tunnel/relay", "tunnel/udp"},
	"agent-host/forward/reverse":   {"agent-host/forward/serve"},
	"agent-host/forward/room":      {"agent-host/forward/serve"},
	"agent-host/forward/serve":     {"agent-host/forward/policy", "tunnel/announce", "tunnel/dial", "tunnel/stream"},
	"agent-host/forward/suggest":   nil,
	"agent-host/forward/told":      {"agent-host/forward/serve"},
	"agent-host/forward/turns":     nil,
	"agent-host/forward/policy":    {"agent-host/status", "tunnel/wire"},
	"agent-host/install":           {"agent-host/ask", "agent-host/keys", "agent-host/output", "agent-host/projects", "agent-host/qga", "cloudinit", "tunnel/builds"},
	"agent-host/intake":            {"tunnel/budget", "tunnel/wire"},
	"agent-host/keys":              {"tunnel/keyfile"},
	"agent-host/libvirt":           nil,
	"agent-host/metrics":           {"agent-host"},
	"agent-host/output":            {"agent-host/events", "agent-host/status"},
	"agent-host/openurl":           {"agent-host/events", "agent-host/status", "tunnel/wire"},
	"agent-host/page":              {"agent-host/status", "tunnel/relay/sockio", "tunnel/reserve"},
	"agent-host/projects":          {"agent-host/configfile", "agent-host/shellword"},
	"agent-host/proxy":             {"agent-host/ask", "agent-host/install", "tunnel/relay"},
	"agent-host/qga":               {"agent-host/libvirt"},
	"agent-host/remote":            {"agent-host/backoff", "agent-host/libvirt", "agent-host/remote/address", "agent-host/remote/protocol", "tunnel/relay"},
	"agent-host/remote/address":    nil,
	"agent-host/remote/protocol":   {"tunnel/endpoint"},
	"agent-host/remote/server":     {"agent-host/libvirt", "agent-host/remote/protocol", "tunnel/dial"},
	"agent-host/remote/there":      {"agent-host/ask", "agent-host/userconfig", "agent-host/vmflag"},
	"agent-host/rulefile":          {"agent-host/config"},
	"agent-host/rumtoml":           {"agent-host/config", "agent-host/output"},
	"agent-host/setup":             {"agent-host/libvirt", "portwatch/nat", "tunnel/keyfile"},
	"agent-host/shellword":         nil,
	"agent-host/sources":           {"agent-host/remote", "agent-host/userconfig"},
	"agent-host/status":            nil,
	"agent-host/systemd":           nil,
	"agent-host/userconfig":        {"agent-host", "agent-host/output", "agent-host/projects"},
	"agent-host/vmflag":            {"agent-host", "agent-host/output"},
	"cloudinit":                    {"tunnel/keyfile"},
	"packaging/man":                nil,
	"portwatch":                    {"portwatch/cpushare", "portwatch/ephemeral", "portwatch/events", "portwatch/netevents", "portwatch/process"},
	"portwatch/cpushare":           nil,
	"portwatch/ephemeral":          nil,
	"portwatch/events":             {"portwatch/portlist"},
	"portwatch/nat":                {"portwatch/netevents"},
	"portwatch/netevents":          nil,
	"portwatch/netns":              {"portwatch"},
	"portwatch/portlist":           nil,
	"portwatch/process":            {"portwatch/portlist"},
	"portwatch/udpdrops":           nil,
	"tunnel":                       {"tunnel/announce", "tunnel/dial", "tunnel/endpoint", "tunnel/handshake", "tunnel/heartbeat", "tunnel/stream", "tunnel/strangers", "tunnel/urls"},
	"tunnel/announce":              {"tunnel/relay", "tunnel/wire"},
	"tunnel/budget":                nil,
	"tunnel/builds":                nil,
	"tunnel/packagers":             nil,
	"tunnel/clock":                 nil,
	"tunnel/dial":                  {"portwatch", "tunnel/relay", "tunnel/udp"},
	"tunnel/endpoint":              {"tunnel/budget", "tunnel/clock", "tunnel/wire"},
	"tunnel/handshake":             {"tunnel/keyfile", "tunnel/wire"},
	"tunnel/heartbeat":             nil,
	"tunnel/journal":               nil,
	"tunnel/keyfile":               nil,
	"tunnel/latency":               nil,
	"tunnel/mux":                   {"tunnel/budget", "tunnel/clock"},
	"tunnel/peerlog":               {"tunnel/journal"},
	"tunnel/relay":                 {"tunnel/latency", "tunnel/mux", "tunnel/relay/epollwait", "tunnel/relay/sockio", "tunnel/reserve"},
	"tunnel/relay/epollwait":       {"tunnel/clock"},
	"tunnel/relay/sockio":          nil,
	"tunnel/reserve":               nil,
	"tunnel/socketpair":            {"tunnel/reserve"},
	"tunnel/stream":                {"tunnel/relay", "tunnel/wire"},
	"tunnel/strangers":             {"tunnel/budget", "tunnel/clock"},
	"tunnel/urls":                  {"tunnel/handshake"},
	"tunnel/udp":                   {"portwatch/udpdrops", "tunnel/budget", "tunnel/clock", "tunnel/relay", "tunnel/wire"},
	"tunnel/wire":                  {"portwatch/portlist"},
}

// Libraries that only some may import.
var libraries = map[string][]string{
	"github.com/BurntSushi/toml":          {"agent-host/config"},
	"github.com/digitalocean/go-libvirt":  {"agent-host/libvirt", "agent-host/qga", "agent-host/setup"},
	"github.com/cilium/ebpf":              {"portwatch/events"},
	"github.com/cilium/ebpf/rlimit":       {"agent-guest/cmd/rum-guest-agent"},
	"github.com/diskfs/go-diskfs":         {"cloudinit"},
	"github.com/google/nftables":          {"portwatch/nat"},
	"github.com/mdlayher/vsock":           {"tunnel/endpoint"},
	"github.com/prometheus/client_golang": {"agent-host/metrics"},
	"github.com/spf13/cobra":              {"agent-host/cmd/rum-host-agent"},
	"libvirt.org/go/libvirtxml":           {"agent-host/setup"},
}

// Packages that work on what they are given: they open nothing and dial nowhere.
var pure = []string{"agent-host/config", "agent-host/config/position", "agent-host/config/spelling", "agent-host/explain", "agent-host/forward/policy", "agent-host/remote/address", "agent-host/status", "portwatch/portlist", "tunnel/wire"}

// importedByPure are the packages of others that a pure one may import: what works on
// values. impure is what some of them have besides.
var importedByPure = []string{
	"bufio", "bytes", "cmp", "crypto/sha256", "encoding/binary", "errors", "fmt", "hash/fnv", "io", "iter", "maps", "math",
	"net/netip", "path", "path/filepath", "regexp", "slices", "strconv", "strings", "time", "unicode", "unicode/utf8", "unique",
	"github.com/BurntSushi/toml", "golang.org/x/crypto/cryptobyte",
}

var impure = regexp.MustCompile(`^(filepath\.(Walk\w*|Glob|Abs|EvalSymlinks)|toml\.DecodeF\w+|fmt\.(Print|Scan)\w*)$`)

// libraryOf is the row of [libraries] that is for a package; "" for none. The longest
// name that fits is its own.
func libraryOf(path string) (row string) {
	for library := range libraries {
		if (path == library || strings.HasPrefix(path, library+"/")) && len(library) > len(row) {
			row = library
		}
	}
	return row
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

// addBelow adds what a package may know.
func addBelow(all map[string]bool, room string) {
	for _, below := range rooms[room] {
		if !all[below] {
			all[below] = true
			addBelow(all, below)
		}
	}
}

func TestPackagesKnowOnlyWhatIsBelowThem(t *testing.T) {
	all := packages(t, "Deps")
	ours := func(dep string) bool {
		return slices.ContainsFunc(all, func(p []string) bool { return p[0] == dep })
	}
	for _, p := range all {
		room, deps := p[0], slices.DeleteFunc(p[1:], func(dep string) bool { return !ours(dep) })
		_, known := rooms[room]
		switch agent, _, command := strings.Cut(room, "/cmd/"); {
		case command:
			other := map[string]string{"agent-host": "agent-guest", "agent-guest": "agent-host"}[agent]
			if i := slices.IndexFunc(deps, func(dep string) bool { return strings.HasPrefix(dep, other) }); i >= 0 || other == "" {
				t.Errorf("%s knows of %v", room, deps)
			}
		case !known:
			t.Errorf("%s has no row in the table of rooms", room)
		default:
			for _, below := range rooms[room] {
				if !slices.Contains(deps, below) {
					t.Errorf("%s does not know of %s: take it out of the row", room, below)
				}
			}
			below := make(map[string]bool)
			addBelow(below, room)
			for _, dep := range deps {
				if !below[dep] {
					t.Errorf("%s knows of %s", room, dep)
				}
			}
		}
	}
}

func TestLibrariesAreImportedOnlyWhereTheyBelong(t *testing.T) {
	all := packages(t, "Imports")
	for _, p := range all {
		for _, path := range p[1:] {
			ours := slices.ContainsFunc(all, func(other []string) bool { return other[0] == path })
			if slices.Contains(pure, p[0]) && !ours && !slices.Contains(importedByPure, path) {
				t.Errorf("%s imports %s: a pure package works on what it is given; if all that this has does too, add it to importedByPure", p[0], path)
			}
			if library := libraryOf(path); library != "" && !slices.Contains(libraries[library], p[0]) {
				t.Errorf("%s imports %s", p[0], path)
			}
		}
	}
}

func TestPurePackagesUseNothingThatReachesOutside(t *testing.T) {
	for _, room := range pure {
		for path, file := range sourceOf(t, filepath.Join("..", room)) {
			eachUse(file, func(what string) {
				if impure.MatchString(what) {
					t.Errorf("%s, which is pure, uses %s", path, what)
				}
			})
		}
	}
}

// namesInCode are names of packages in a cell of the table of rooms.
var namesInCode = regexp.MustCompile("`([^`]+)`")

// rowsOfTheArchitecture are where docs/architecture.md has each package, by row and within one from the
// left. The names behind the first in a row are beside it or below it.
func rowsOfTheArchitecture(t *testing.T, all [][]string) map[string]int {
	text, err := os.ReadFile("../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n## The rooms\n")
	table, _, _ = strings.Cut(table, "\n## ")
	at := make(map[string]int)
	for row := range strings.Lines(table) {
		if !strings.HasPrefix(row, "| `") {
			continue
		}
		first := ""
		for _, name := range namesInCode.FindAllStringSubmatch(strings.Split(row, "|")[1], -1) {
			is := func(room string) bool {
				return slices.ContainsFunc(all, func(p []string) bool { return p[0] == room })
			}
			room := name[1]
			switch {
			case first == "":
				first = room
			case is(path.Join(path.Dir(first), room)):
				room = path.Join(path.Dir(first), room)
			default:
				room = path.Join(first, room)
			}
			if !is(room) && !strings.HasSuffix(room, "/cmd") {
				t.Errorf("docs/architecture.md has a row for %s, which is no package", room)
			}
			at[room] = len(at)
		}
	}
	return at
}

func TestEveryRoomIsInTheArchitecture(t *testing.T) {
	all := packages(t, "Imports")
	at := rowsOfTheArchitecture(t, all)
	for _, p := range all {
		if _, there := at[p[0]]; !there && !strings.Contains(p[0], "/cmd/") {
			t.Errorf("docs/architecture.md has no row for %s", p[0])
		}
	}
}

func TestImportsGoDownTheTableOfTheArchitecture(t *testing.T) {
	all := packages(t, "Imports")
	at := rowsOfTheArchitecture(t, all)
	for _, p := range all {
		from, there := at[p[0]]
		for _, path := range p[1:] {
			if to, ours := at[path]; there && ours && to < from {
				t.Errorf("%s imports %s, which docs/architecture.md has above it", p[0], path)
			}
		}
	}
}
