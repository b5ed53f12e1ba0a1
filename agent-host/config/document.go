package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/rum-vm/rum-agent/agent-host/config/position"
	"github.com/rum-vm/rum-agent/agent-host/config/spelling"
)

// Error is a mistake in a configuration file.
type Error struct {
	File string
	// Line and Column count from 1; a column is a character.
	Line, Column int
	// Key is the key at fault, as in "ports.guest"; empty where there is none.
	Key string
	// Text says what is wrong and what would be right.
	Text string
}

func (e *Error) Error() string {
	at := fmt.Sprintf("%s:%d:%d: ", e.File, e.Line, e.Column)
	if e.Key != "" {
		at += e.Key + ": "
	}
	return at + e.Text
}

func compareErrors(a, b *Error) int {
	return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
}

// syntaxError converts an error of the TOML parser about src. Of the parser's position only
// the offset counts, because its line is the next one where a table header is not closed.
func syntaxError(file, src string, err error) error {
	e := &Error{File: file, Line: 1, Column: 1, Text: strings.TrimPrefix(err.Error(), "toml: ")}
	if p, ok := errors.AsType[toml.ParseError](err); ok {
		e.Line, e.Column = position.LineAndColumn(src, min(max(p.Position.Start, 0), len(src)))
		e.Key, e.Text = p.LastKey, p.Message
	}
	return e
}

// withoutBOM removes a byte order mark, the one of UTF-8 or of what is not UTF-16
// after all. The parser skips them too.
func withoutBOM(src string) string {
	for _, bom := range []string{"\xff\xfe", "\xfe\xff", "\xef\xbb\xbf"} {
		if rest, ok := strings.CutPrefix(src, bom); ok {
			return rest
		}
	}
	return src
}

// document is a file that is TOML, while its meaning is worked out.
type document struct {
	file string
	src  string
	at   map[position.Path]int // byte offsets of keys and table headers
	errs []*Error

	rum      bool   // rum reads it too
	domain   string // the only VM that a project's file is for
	warnings []*Error
}

// errorf records a mistake at p.
func (d *document) errorf(p position.Path, format string, args ...any) {
	d.errs = append(d.errs, d.note(p, fmt.Sprintf(format, args...)))
}

func (d *document) note(p position.Path, text string) *Error {
	line, column := d.position(p)
	return &Error{File: d.file, Line: line, Column: column, Key: dotted(p), Text: text}
}

// position tells where p is, or what it is in.
func (d *document) position(p position.Path) (line, column int) {
	offset, ok := d.at[p]
	for !ok && p != "" {
		p = p.Parent()
		offset, ok = d.at[p]
	}
	return position.LineAndColumn(d.src, offset)
}

// dotted is the key as TOML writes it, without indexes: the line tells which one.
func dotted(p position.Path) string {
	var key toml.Key
	for _, name := range p.Keys() {
		key = append(key, shorten(name))
	}
	return key.String()
}

// shorten keeps what came from the file to a length that fits in a line.
func shorten(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}

// table is a TOML table while it is read. Its methods record what is wrong
// with a value, and report false for it as for one that is not there.
type table struct {
	doc    *document
	path   position.Path
	values map[string]any
}

func (t table) errorf(key, format string, args ...any) {
	t.doc.errorf(t.path.Key(key), format, args...)
}

// allow records every key that is not one of these.
func (t table) allow(known ...string) {
	for k := range t.values {
		if slices.Contains(known, k) {
			continue
		}
		if s := spelling.Meant(k, known); s != "" {
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
		if near := spelling.Meant(s, words); near != "" {
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
	return table{t.doc, t.path.Key(key), v}, ok
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
		t.doc.errorf(t.path.Key(key).Index(maxRules), "%d rules are more than %d, which is the most", len(elements), maxRules)
		return nil
	}
	var out []table
	for i, e := range elements {
		p := t.path.Key(key).Index(i)
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
