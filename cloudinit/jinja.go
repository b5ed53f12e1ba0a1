package cloudinit

import (
	"bytes"
	"regexp"
	"strings"
)

var (
	jinjaHeader = regexp.MustCompile(`(?i)^##\s*template:\s*jinja\s*$`)
	// jinjaComment and jinjaTag leave nothing of themselves in what is rendered, with the line's end behind them.
	jinjaComment = regexp.MustCompile(`^(?s:\{#.*?#\})\n?`)
	jinjaTag     = regexp.MustCompile(`(?s:\{%.*?%\})\n?`)
)

// checkJinja looks at the template's kind, and at whether it can render to anything: what
// to is known in the guest.
func checkJinja(data []byte, first int) error {
	header, rest, _ := bytes.Cut(data, []byte("\n"))
	if !jinjaHeader.Match(header) {
		return atLine(first, "the first line is not ## template: jinja but %.40q", header)
	}
	rest = bytes.ReplaceAll(rest, []byte("\r\n"), []byte("\n"))
	line := first + 1
	whole := string(rest)
	for {
		text := bytes.TrimLeft(rest, " \t\n")
		text = text[len(jinjaComment.Find(text)):]
		if len(text) == len(rest) {
			break
		}
		line += bytes.Count(rest[:len(rest)-len(text)], []byte("\n"))
		rest = text
	}
	kind, ok := kindOf(rest)
	if bytes.HasPrefix(rest, []byte("{%")) || bytes.HasPrefix(rest, []byte("{{")) {
		// What comes first of all is not known here: any line that could be it will do.
		for text := range strings.Lines(jinjaTag.ReplaceAllString(string(rest), "\n")) {
			if kind, ok = kindOf([]byte(text)); ok && isTemplate(kind) {
				break
			}
		}
		ok = ok || bytes.HasPrefix(rest, []byte("{{"))
	}
	switch {
	case !ok:
		return atLine(line, "the line after the template header says what it is a template of: #cloud-config or #!, not %.40q",
			firstLine(rest))
	case !isTemplate(kind):
		return atLine(line, "cloud-init knows no template of %s: only #cloud-config and #! come after the header", kind)
	}
	return checkTemplate(whole, first+1)
}

// isTemplate reports whether cloud-init does what a template of that kind renders to (sub_handlers in its stages.py).
func isTemplate(kind Kind) bool {
	return kind == KindCloudConfig || kind == KindJSONPatch || kind == KindScript || kind == kindByItsContent
}
