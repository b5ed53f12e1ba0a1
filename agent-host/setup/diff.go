package setup

import (
	"bytes"
	"regexp"

	"github.com/rogpeppe/go-internal/diff"
)

var password = regexp.MustCompile(`(\spasswd=)('[^']*'|"[^"]*")`)

// diffText is a unified diff without the passwords of graphics devices; empty when nothing differs.
func diffText(name, before, after string) string {
	hide := func(text string) []byte { return password.ReplaceAll([]byte(text), []byte("$1'...'")) }
	d := diff.Diff(name, hide(before), name+" (new)", hide(after))
	// The first line only repeats the two names.
	if _, rest, ok := bytes.Cut(d, []byte("\n")); ok {
		return string(rest)
	}
	return ""
}
