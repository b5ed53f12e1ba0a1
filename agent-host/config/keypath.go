package config

import (
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// keyPath names a key in a document, or an element of an array. Each step begins
// with one of two bytes that TOML has in no key as it is written.
type keyPath string

const (
	keyStep   = "\x00"
	indexStep = "\x01"
)

func (p keyPath) key(name string) keyPath { return p + keyPath(keyStep+name) }
func (p keyPath) index(i int) keyPath     { return p + keyPath(indexStep+strconv.Itoa(i)) }

func (p keyPath) parent() keyPath {
	return p[:max(strings.LastIndexAny(string(p), keyStep+indexStep), 0)]
}

// String is the dotted key, without indexes: the line tells which one.
func (p keyPath) String() string {
	var key toml.Key
	for step := range strings.SplitSeq(string(p), keyStep) {
		name, _, _ := strings.Cut(step, indexStep)
		if name != "" {
			key = append(key, shorten(name))
		}
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
