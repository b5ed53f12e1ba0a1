package output

import (
	"io"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Checks writes for people what was looked at. Commands are on lines of their own, which are not broken: they are to be
// pasted. Without UTF-8 the marks are words.
func Checks(w io.Writer, all []status.Check, utf8 bool, look Look) error {
	good, bad := marks(utf8)
	names := 0
	for _, c := range all {
		names = max(names, columns(shorten(Clean(c.Name), maxName)))
	}
	var b strings.Builder
	for _, c := range all {
		mark := bad
		if c.OK {
			mark = good
		}
		writeCell(&b, mark, look.Colour)
		name := shorten(Clean(c.Name), maxName)
		before := strings.Repeat(" ", columns(mark.text)+2+names+2)
		b.WriteString("  " + name + strings.Repeat(" ", names-columns(name)) + "  " + strings.TrimPrefix(wrapped(CleanError(c.Text), before, look.Width), before))
		below := strings.Repeat(" ", columns(mark.text)+2)
		if c.Remedy == "" {
			continue
		}
		words, rest, _ := strings.Cut(c.Remedy, c.Command)
		if c.Command == "" {
			words, rest = c.Remedy, ""
		}
		b.WriteString(wrapped("to do: "+strings.TrimRight(CleanHint(words), " "), below, look.Width))
		if c.Command != "" {
			b.WriteString(below + "    " + CleanHint(c.Command) + "\n")
		}
		if rest = strings.TrimLeft(rest, "; "); rest != "" {
			b.WriteString(wrapped(CleanHint(rest), below, look.Width))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// maxName bounds the name of a check, in columns.
const maxName = 24

// marks are those of what is as it should be and what is not.
func marks(utf8 bool) (good, bad Cell) {
	if utf8 {
		return Cell{"✓", "32"}, Cell{"✗", "31"}
	}
	return Cell{"ok", "32"}, Cell{"NO", "31"}
}
