package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// table is a TOML table while it is read. Its methods record what is wrong
// with a value, and report false for it as for one that is not there.
type table struct {
	doc    *document
	path   keyPath
	values map[string]any
}

func (t table) errorf(key, format string, args ...any) {
	t.doc.errorf(t.path.key(key), format, args...)
}

// allow records every key that is not one of these.
func (t table) allow(known ...string) {
	for k := range t.values {
		if slices.Contains(known, k) {
			continue
		}
		if s := suggest(k, known); s != "" {
			t.errorf(k, "unknown key; did you mean %s?", s)
		} else {
			t.errorf(k, "unknown key; known here are %s", strings.Join(known, ", "))
		}
	}
}

func (t table) has(key string) bool {
	_, ok := t.values[key]
	return ok
}

// get returns the value of a key that must have the type T.
func get[T any](t table, key, want string) (T, bool) {
	v, ok := t.values[key]
	if !ok {
		return *new(T), false
	}
	got, ok := v.(T)
	if !ok {
		t.errorf(key, "want %s, not %s", want, typeName(v))
	}
	return got, ok
}

// text returns a string, which must not be empty.
func (t table) text(key string) (string, bool) {
	s, ok := get[string](t, key, "a string")
	if ok && s == "" {
		t.errorf(key, "is empty; leave the key out instead")
		return "", false
	}
	return s, ok
}

func (t table) flag(key string) bool {
	v, _ := get[bool](t, key, "true or false")
	return v
}

// word returns one of the words given.
func (t table) word(key string, words ...string) (string, bool) {
	s, ok := get[string](t, key, "a string")
	if ok && !slices.Contains(words, s) {
		if near := suggest(s, words); near != "" {
			t.errorf(key, "%q is not known; did you mean %q?", shorten(s), near)
		} else {
			t.errorf(key, "%q is not known; it is one of %q", shorten(s), words)
		}
		return "", false
	}
	return s, ok
}

// ports returns a port or a range of them.
func (t table) ports(key string) (Ports, bool) {
	v, ok := t.values[key]
	if !ok {
		return Ports{}, false
	}
	var p Ports
	var err error
	switch v := v.(type) {
	case int64:
		p, err = portRange(v, v)
	case string:
		p, err = parsePorts(v)
	default:
		err = fmt.Errorf(`want a port such as 8080 or a range such as "4000-4999", not %s`, typeName(v))
	}
	if err != nil {
		t.errorf(key, "%v", err)
	}
	return p, err == nil
}

func (t table) table(key string) (table, bool) {
	v, ok := get[map[string]any](t, key, "a table, ["+key+"]")
	return table{t.doc, t.path.key(key), v}, ok
}

// tables returns the elements of an array of tables, however it is written.
func (t table) tables(key string) []table {
	var elements []any
	switch v := t.values[key].(type) {
	case nil:
		return nil
	case []map[string]any:
		for _, e := range v {
			elements = append(elements, e)
		}
	case []any:
		elements = v
	default:
		t.errorf(key, "want tables, each under a [[%s]] of its own, not %s", key, typeName(v))
		return nil
	}
	if len(elements) > maxRules {
		t.doc.errorf(t.path.key(key).index(maxRules), "%d rules are more than %d, which is the most", len(elements), maxRules)
		return nil
	}
	var out []table
	for i, e := range elements {
		p := t.path.key(key).index(i)
		values, ok := e.(map[string]any)
		if !ok {
			t.doc.errorf(p, "want a table, not %s", typeName(e))
			continue
		}
		out = append(out, table{t.doc, p, values})
	}
	return out
}

func typeName(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a number with a fraction"
	case bool:
		return "true or false"
	case time.Time:
		return "a date"
	case map[string]any:
		return "a table"
	}
	return "an array"
}
