package position

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Path names a key in a document, or an element of an array; the empty one is the document.
// Each step begins with one of two bytes that TOML has in no key as it is written.
type Path string

const (
	keyStep   = "\x00"
	indexStep = "\x01"
)

// Key is the key of that name in the table at p.
func (p Path) Key(name string) Path { return p + Path(keyStep+name) }

// Index is the element i, from 0 on, of the array at p.
func (p Path) Index(i int) Path { return p + Path(indexStep+strconv.Itoa(i)) }

// Parent is the table that a key is in, or the array that an element is of.
func (p Path) Parent() Path {
	return p[:max(strings.LastIndexAny(string(p), keyStep+indexStep), 0)]
}

// Keys are the names on the way to p, without indexes.
func (p Path) Keys() (names []string) {
	for step := range strings.SplitSeq(string(p), keyStep) {
		if name, _, _ := strings.Cut(step, indexStep); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// LineAndColumn tells where the byte of src at offset is. Both count from 1, and a column
// is a character.
func LineAndColumn(src string, offset int) (line, column int) {
	before := src[:offset]
	start := strings.LastIndexByte(before, '\n') + 1
	return 1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(before[start:])
}
