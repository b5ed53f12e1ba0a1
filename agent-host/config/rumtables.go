package config

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/rum-vm/rum-agent/agent-host/config/position"
)

// kind is what rum wants of a value.
type kind int

const (
	text kind = iota
	integer
	boolean
	texts    // an array of strings
	aTable   // whose keys are those of the schema
	named    // a table whose keys users name
	someRows // an array of tables
)

// schema says what rum has at one place of its file, read of its public source in
// April 2026. What it allows is accepted, and left to rum.
type schema struct {
	kind     kind
	required bool
	most     int64             // of an integer; 0 for what an int64 holds
	keys     map[string]schema // of a table
	ours     []string          // keys of ours beside them, which are read elsewhere
	each     *schema           // of what users name
}

var (
	aText    = schema{kind: text}
	anInt    = schema{kind: integer}
	aBool    = schema{kind: boolean}
	theTexts = schema{kind: texts}
	aScript  = tableOf(map[string]schema{"script": {kind: text, required: true}})
)

func tableOf(keys map[string]schema) schema { return schema{kind: aTable, keys: keys} }

func rowsOf(keys map[string]schema) schema { return schema{kind: someRows, keys: keys} }

func namedBy(each schema) schema { return schema{kind: named, each: &each} }

// rumTables are the tables and keys of rum's own.
var rumTables = schema{kind: aTable, ours: []string{tableAuto, tablePorts, tableForward, tableVM, tableHosts}, keys: map[string]schema{
	"name": aText,
	"image": {kind: aTable, required: true, keys: map[string]schema{
		"base": {kind: text, required: true},
	}},
	"resources": {kind: aTable, required: true, keys: map[string]schema{
		"cpus": {kind: integer, required: true, most: math.MaxUint32}, "memory_mb": {kind: integer, required: true}, "disk": aText,
	}},
	"network": {kind: aTable, ours: networkKeys, keys: map[string]schema{
		"nat": aBool, "hostname": aText, "wait_for_ip": aBool, "ip_wait_timeout_s": anInt,
		"interfaces": rowsOf(map[string]schema{"network": aText, "ip": aText}),
	}},
	"provision": tableOf(map[string]schema{"system": aScript, "boot": aScript}),
	"advanced": tableOf(map[string]schema{
		keyLibvirtURI: aText, "domain_type": aText, "machine": aText, "autologin": aBool,
	}),
	"ssh": tableOf(map[string]schema{
		"user": aText, "command": aText, "interface": aText, "authorized_keys": theTexts,
	}),
	"user": tableOf(map[string]schema{"name": aText, "groups": theTexts}),
	"mounts": rowsOf(map[string]schema{
		"source": aText, "target": aText, "readonly": aBool, "tag": aText, "default": aBool,
		"inotify": aBool, // of older files
	}),
	"drives": namedBy(tableOf(map[string]schema{"size": aText})),
	"fs": namedBy(rowsOf(map[string]schema{
		"drive": aText, "drives": theTexts, "target": aText, "mode": aText, "pool": aText,
	})),
}}

// keysOf are the keys that rum has in a table, in their order.
func (s schema) keysOf() []string { return slices.Sorted(maps.Keys(s.keys)) }

// foreign looks through a table of rum's: what is nobody's is a mistake, what rum
// will refuse a warning.
func (t table) foreign(s schema) {
	t.allow(slices.Concat(s.ours, s.keysOf())...)
	for _, key := range s.keysOf() {
		if s.keys[key].required && !t.has(key) {
			t.refused(key, "rum refuses the file: it wants %s", s.keys[key].kind)
		}
		if t.has(key) {
			t.foreignValue(key, s.keys[key])
		}
	}
}

func (t table) foreignValue(key string, s schema) {
	v := t.values[key]
	if !s.kind.has(v) {
		is := typeName(v)
		if n, ok := v.(int64); ok && s.kind == integer {
			is = strconv.FormatInt(n, 10)
		}
		t.refused(key, "rum refuses the file: it wants %s, not %s", s.kind, is)
		return
	}
	if n, ok := v.(int64); ok && s.most > 0 && n > s.most {
		t.refused(key, "rum refuses the file: the most is %d", s.most)
	}
	p := t.path.Key(key)
	switch s.kind {
	case aTable:
		table{t.doc, p, v.(map[string]any)}.foreign(s)
	case named:
		inner := table{t.doc, p, v.(map[string]any)}
		for name := range inner.values {
			inner.foreignValue(name, *s.each)
		}
	case someRows:
		for i, row := range rows(v) {
			table{t.doc, p.Index(i), row.(map[string]any)}.foreign(s)
		}
	}
}

// has reports whether a value is of the kind.
func (k kind) has(v any) (ok bool) {
	switch k {
	case text:
		_, ok = v.(string)
	case integer:
		n, isInt := v.(int64)
		ok = isInt && n >= 0 // all of rum's are unsigned
	case boolean:
		_, ok = v.(bool)
	case texts:
		all, isArray := v.([]any)
		ok = isArray && !slices.ContainsFunc(all, func(e any) bool { return !text.has(e) })
	case aTable, named:
		_, ok = v.(map[string]any)
	case someRows:
		ok = rows(v) != nil && !slices.ContainsFunc(rows(v), func(e any) bool { return !aTable.has(e) })
	}
	return ok
}

func (k kind) String() string {
	return [...]string{"a string", "an integer from 0 up", "true or false", "an array of strings", "a table", "a table", "an array of tables"}[k]
}

// rows are the elements of an array, however it is written; nil for what is none.
func rows(v any) []any {
	switch v := v.(type) {
	case []any:
		return append([]any{}, v...)
	case []map[string]any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = e
		}
		return out
	}
	return nil
}

// refused records what rum will refuse. It is no mistake for us: the rules count.
func (t table) refused(key, format string, args ...any) {
	t.doc.warnf(t.path.Key(key), format, args...)
}

// warnf records a warning at p, in a file that rum reads too.
func (d *document) warnf(p position.Path, format string, args ...any) {
	if d.rum {
		d.warnings = append(d.warnings, d.note(p, fmt.Sprintf(format, args...)))
	}
}
