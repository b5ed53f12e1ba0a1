package position

import (
	"strconv"
	"strings"
)

// Of tells where the keys and table headers of a document are, in bytes from its start.
// The document must be valid TOML, which the parser has made sure of; the parser
// itself keeps one position only for a key of all elements of an array.
func Of(src string) map[Path]int {
	s := scanner{src: src, at: map[Path]int{"": 0}, elements: make(map[Path]int)}
	var in Path
	for s.skipBlank(); s.pos < len(src); s.skipBlank() {
		if s.src[s.pos] == '[' {
			in = s.header()
		} else {
			s.keyValue(in)
		}
	}
	return s.at
}

type scanner struct {
	src      string
	pos      int
	at       map[Path]int
	elements map[Path]int // how many headers an array of tables has had
}

// peek is the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.pos < len(s.src) {
		return s.src[s.pos]
	}
	return 0
}

// skipBlank skips blanks, line ends and comments.
func (s *scanner) skipBlank() {
	for s.pos < len(s.src) {
		switch s.src[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		case '#':
			s.skipUntil("\n")
		default:
			return
		}
	}
}

// skip moves past n bytes.
func (s *scanner) skip(n int) { s.pos = min(s.pos+n, len(s.src)) }

// skipUntil moves to the next of the given bytes, or to the end.
func (s *scanner) skipUntil(bytes string) {
	if i := strings.IndexAny(s.src[s.pos:], bytes); i >= 0 {
		s.pos += i
	} else {
		s.pos = len(s.src)
	}
}

// header reads [a.b] or [[a.b]] and returns the table it opens.
func (s *scanner) header() Path {
	start := s.pos
	array := strings.HasPrefix(s.src[s.pos:], "[[")
	s.skip(1)
	if array {
		s.skip(1)
	}
	var p Path
	keys := s.dottedKey()
	for i, k := range keys {
		p = p.Key(k)
		if array && i == len(keys)-1 {
			s.elements[p]++
		}
		s.first(p, start)
		if n := s.elements[p]; n > 0 {
			p = p.Index(n - 1)
		}
	}
	s.at[p] = start
	s.skipUntil("\n")
	return p
}

// first notes where a key or table is named first, if it is here.
func (s *scanner) first(p Path, at int) {
	if _, ok := s.at[p]; !ok {
		s.at[p] = at
	}
}

// keyValue reads "key = value" in the table p.
func (s *scanner) keyValue(p Path) {
	start := s.pos
	for _, k := range s.dottedKey() {
		p = p.Key(k)
		s.first(p, start)
	}
	s.skip(1) // =
	s.value(p)
}

// dottedKey reads a key up to the "=" or "]" behind it.
func (s *scanner) dottedKey() (keys []string) {
	for s.pos < len(s.src) {
		s.skipBlank()
		start := s.pos
		if c := s.peek(); c == '"' || c == '\'' {
			s.skipString()
			keys = append(keys, unquote(s.src[start:s.pos]))
		} else {
			s.skipUntil(".=] \t\r\n")
			keys = append(keys, s.src[start:s.pos])
		}
		s.skipBlank()
		if s.peek() != '.' {
			break
		}
		s.pos++
	}
	return keys
}

// unquote reads a quoted key. One with an escape that Go does not have is kept as
// it is written: then it is placed where its table is.
func unquote(s string) string {
	if key, err := strconv.Unquote(s); err == nil && s[0] == '"' {
		return key
	}
	return s[1:max(len(s)-1, 1)]
}

// value reads the value of p.
func (s *scanner) value(p Path) {
	s.skipBlank()
	switch s.peek() {
	case '"', '\'':
		s.skipString()
	case '[':
		s.pos++
		n := 0
		for s.more(']') {
			s.at[p.Index(n)] = s.pos
			s.value(p.Index(n))
			n++
		}
	case '{':
		s.pos++
		for s.more('}') {
			s.keyValue(p)
		}
	default:
		s.skipUntil(",]}#\n")
	}
}

// more reports whether an array or inline table has another element, and goes
// there; if not, it goes behind the end.
func (s *scanner) more(end byte) bool {
	for s.skipBlank(); s.peek() == ','; s.skipBlank() {
		s.pos++
	}
	if s.pos >= len(s.src) {
		return false
	}
	if s.src[s.pos] == end {
		s.pos++
		return false
	}
	return true
}

// skipString skips one of the four kinds of strings.
func (s *scanner) skipString() {
	quote := s.src[s.pos : s.pos+1]
	long := strings.HasPrefix(s.src[s.pos:], strings.Repeat(quote, 3))
	end := quote
	if long {
		end = strings.Repeat(quote, 3)
	}
	s.skip(len(end))
	for s.pos < len(s.src) && !strings.HasPrefix(s.src[s.pos:], end) {
		if quote == `"` && s.src[s.pos] == '\\' {
			s.skip(1)
		}
		s.skip(1)
	}
	s.skip(len(end))
	// Up to two quotes may stand before the three that end a long string.
	for long && s.peek() == quote[0] {
		s.pos++
	}
}
