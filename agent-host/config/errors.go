package config

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
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
		e.Line, e.Column = lineAndColumn(src, min(max(p.Position.Start, 0), len(src)))
		e.Key, e.Text = p.LastKey, p.Message
	}
	return e
}

// lineAndColumn tells where the byte of src at offset is.
func lineAndColumn(src string, offset int) (line, column int) {
	before := src[:offset]
	start := strings.LastIndexByte(before, '\n') + 1
	return 1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(before[start:])
}

// document is a file that is TOML, while its meaning is worked out.
type document struct {
	file string
	src  string
	at   map[keyPath]int // byte offsets of keys and table headers
	errs []*Error

	rum      bool   // rum reads it too
	domain   string // the only VM that a project's file is for
	warnings []*Error
}

// errorf records a mistake at p.
func (d *document) errorf(p keyPath, format string, args ...any) {
	d.errs = append(d.errs, d.note(p, fmt.Sprintf(format, args...)))
}

func (d *document) note(p keyPath, text string) *Error {
	line, column := d.position(p)
	return &Error{File: d.file, Line: line, Column: column, Key: p.String(), Text: text}
}

// position tells where p is, or what it is in.
func (d *document) position(p keyPath) (line, column int) {
	offset, ok := d.at[p]
	for !ok && p != "" {
		p = p.parent()
		offset, ok = d.at[p]
	}
	return lineAndColumn(d.src, offset)
}
