package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/config/position"
)

// Limits of rum's.
const (
	rumMinCPUs   = 1
	rumMinMemory = 256 // MiB
	rumMaxDrives = 24
	rumMaxHost   = 253 // bytes of a host name
)

// rumBind is where rum has the host ports of rules that do not say.
const rumBind = "127.0.0.1"

// rumChecks warns about values of the right types that rum refuses all the same.
// It says nothing about what rum checks outside of the file, such as directories.
func (d *document) rumChecks(root table) {
	if !d.rum {
		return
	}
	if t, ok := root.part("resources"); ok {
		t.atLeast("cpus", rumMinCPUs)
		t.atLeast("memory_mb", rumMinMemory)
		if s, ok := t.values["disk"].(string); ok && s != "" {
			t.size("disk", s)
		}
	}
	if t, ok := root.part("network"); ok {
		if s, _ := t.values["hostname"].(string); s != "" && !rumHostname(s) {
			t.refused("hostname", "rum refuses the file: a host name has letters, digits, and between them hyphens and dots")
		}
		for _, i := range t.parts("interfaces") {
			if s, _ := i.values["network"].(string); s == "" {
				i.refused("network", "rum refuses the file: an interface is on a network, which has a name")
			}
		}
	}
	drives, _ := root.part("drives")
	if n := len(drives.values); n > rumMaxDrives {
		root.refused("drives", "rum refuses the file: %d drives are more than %d", n, rumMaxDrives)
	}
	for name := range drives.values {
		t, ok := drives.part(name)
		if s, isText := t.values["size"].(string); ok && (isText || !t.has("size")) {
			t.size("size", s)
		}
	}
	d.rumMounts(root, drives)
	d.rumPorts(root)
}

// rumMounts checks what is mounted in the guest, by [[mounts]] and by [fs].
func (d *document) rumMounts(root, drives table) {
	var mounted []table
	tags, defaults := map[string]string{}, 0 // by tag, the target
	for _, m := range root.parts("mounts") {
		mounted = append(mounted, m)
		tag, key := m.rumTag()
		target, _ := m.values["target"].(string)
		if before, taken := tags[tag]; taken && tag != "" && (key == "tag" || before != target) {
			m.refused(key, "rum refuses the file: an earlier mount has the tag %q", shorten(tag))
		}
		tags[tag] = target
		if m.values["default"] == true {
			if defaults++; defaults == 2 {
				m.refused("default", "rum refuses the file: an earlier mount is the default")
			}
		}
	}
	used := map[string]bool{}
	fs, _ := root.part("fs")
	for _, kind := range slices.Sorted(maps.Keys(fs.values)) {
		for _, f := range fs.parts(kind) {
			mounted = append(mounted, f)
			f.rumFilesystem(kind, drives, used)
		}
	}
	d.inOrder(mounted)
	for i, t := range mounted {
		target, _ := t.values["target"].(string)
		if !path.IsAbs(target) {
			t.refused("target", "rum refuses the file: target has to be an absolute path in the guest")
			continue
		}
		for _, before := range mounted[:i] {
			other, _ := before.values["target"].(string)
			if other == target || strings.HasPrefix(target, other+"/") || strings.HasPrefix(other, target+"/") {
				line, _ := d.position(before.path)
				t.refused("target", "rum refuses the file: line %d mounts %s already", line, shorten(other))
				break
			}
		}
	}
}

// rumTag is the tag of a mount, and the key that it comes from: where none is written, it is the target's path with
// underscores in the place of slashes.
func (t table) rumTag() (tag, key string) {
	if tag, _ := t.values["tag"].(string); tag != "" {
		return tag, "tag"
	}
	target, _ := t.values["target"].(string)
	return strings.ReplaceAll(strings.Trim(target, "/"), "/", "_"), "target"
}

// rumFilesystem checks one [[fs.TYPE]]; used are the drives of those before it.
func (t table) rumFilesystem(kind string, drives table, used map[string]bool) {
	pooled := kind == "zfs" || kind == "btrfs"
	one, _ := t.values["drive"].(string)
	var all []string
	list, _ := t.values["drives"].([]any)
	for _, v := range list {
		s, _ := v.(string)
		all = append(all, s)
	}
	want, other := "drive", "drives"
	if pooled {
		want, other = other, want
	} else if one != "" {
		all = []string{one}
	}
	if pooled && len(list) == 0 || !pooled && one == "" {
		t.refused(want, "rum refuses the file: %s takes %s", shorten(kind), want)
	}
	if pooled && one != "" || !pooled && len(list) > 0 {
		t.refused(other, "rum refuses the file: %s takes %s", shorten(kind), want)
	}
	if s, _ := t.values["pool"].(string); s != "" && kind != "zfs" {
		t.refused("pool", "rum refuses the file: it is for zfs only")
	}
	if t.has("mode") && !pooled {
		t.refused("mode", "rum refuses the file: it is for zfs and btrfs only")
	}
	for _, name := range all {
		switch {
		case !drives.has(name):
			t.refused(want, "rum refuses the file: there is no [drives.%s]", shorten(name))
		case used[name]:
			t.refused(want, "rum refuses the file: drive %q is in use by an earlier one", shorten(name))
		}
		used[name] = true
	}
}

// onlyOurs are keys whose rules rum would take for ports to forward.
var onlyOurs = []string{keyIgnore, keyReverse, keyGuestSocket, keyHostSocket}

// rumPorts checks the [[ports]], which mean the same to rum and to us.
func (d *document) rumPorts(root table) {
	type place struct {
		port int64
		bind string
	}
	taken := map[place]position.Path{}
	for _, t := range root.parts(tablePorts) {
		for _, key := range []string{keyHost, keyGuest} {
			if _, ok := t.values[key].(int64); !ok {
				what := "rum refuses the file: it wants integers, host and guest, in each [[ports]]"
				d.warnf(cmp.Or(t.existing(key), t.path), what+"; put the rule into [[%s]]", tableForward)
				break
			}
		}
		if proto, ok := t.values[keyProto].(string); ok && proto != string(TCP) {
			t.refused(keyProto, "rum takes the rule for a port to forward over tcp; put it into [[%s]]", tableForward)
		}
		for _, key := range onlyOurs {
			if v := t.values[key]; v != nil && v != false {
				t.refused(key, "rum takes the rule for a port to forward; put it into [[%s]]", tableForward)
			}
		}
		host, isInt := t.values[keyHost].(int64)
		bind, isText := t.values[keyBind].(string)
		if t.has(keyBind) && !isText || !isInt {
			continue
		}
		at := place{host, cmp.Or(bind, rumBind)}
		if before, ok := taken[at]; ok {
			line, _ := d.position(before)
			t.refused(keyHost, "rum refuses the file: line %d has host port %d already; put one of the rules into [[%s]]", line, host, tableForward)
			continue
		}
		taken[at] = t.path
	}
}

// existing is the path of a key that is there; empty for one that is not.
func (t table) existing(key string) position.Path {
	if t.has(key) {
		return t.path.Key(key)
	}
	return ""
}

// part is a table in a table, if it is one.
func (t table) part(key string) (table, bool) {
	v, ok := t.values[key].(map[string]any)
	return table{t.doc, t.path.Key(key), v}, ok
}

// parts are the tables in an array.
func (t table) parts(key string) []table {
	var out []table
	for i, v := range rows(t.values[key]) {
		if values, ok := v.(map[string]any); ok {
			out = append(out, table{t.doc, t.path.Key(key).Index(i), values})
		}
	}
	return out
}

func (t table) atLeast(key string, least int64) {
	if n, ok := t.values[key].(int64); ok && n >= 0 && n < least {
		t.refused(key, "rum refuses the file: the least is %d", least)
	}
}

// size checks a size such as "20G".
func (t table) size(key, s string) {
	s = strings.TrimSpace(s)
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	n, err := strconv.ParseUint(digits, 10, 64)
	unit := strings.TrimSuffix(strings.ToUpper(s[len(digits):]), "B")
	power := strings.Index("KMGT", unit)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange) || len(unit) > 1 || power < 0 || strings.EqualFold(s[len(digits):], "B"):
		t.refused(key, `rum refuses the file: %q is not a size such as "20G"`, shorten(s))
	case err != nil || unit != "" && n > math.MaxUint64>>(10*(power+1)):
		t.refused(key, "rum refuses the file: the size %q is larger than 64 bits hold in bytes", shorten(s))
	}
}

func rumHostname(s string) bool {
	for _, c := range s {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '.') {
			return false
		}
	}
	return len(s) <= rumMaxHost && strings.Trim(s, "-.") == s
}

// rumName warns about a file name that gives no name of a VM.
func (d *document) rumName() {
	if !d.rum {
		return
	}
	if name := VMName(d.file); name != "" && !goodVMName(name) {
		d.warnings = append(d.warnings, d.note("", fmt.Sprintf("rum refuses the file: %q cannot name a VM; rename it to rum.toml or NAME.rum.toml", shorten(name))))
	}
}
