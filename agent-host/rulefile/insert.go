package rulefile

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/config"
)

// Rule is what is put into a file.
type Rule struct {
	config.Mapping
	Hold time.Duration // 0 for none
	VM   string        // the only one that it is for; empty for all, as in the file of a project
}

// Text is the rule as a file has it, in the table that rum reads too or in ours. A rule of the
// former means 127.0.0.1 to rum alone, and localhost to us.
func (r Rule) Text(forRum bool) string {
	var b strings.Builder
	if forRum {
		fmt.Fprintf(&b, "[[ports]]\nguest = %v\nhost = %v\nhost_ip = %q\n", r.Guest, r.Host, config.WordLocalhost)
	} else {
		fmt.Fprintf(&b, "[[forward]]\nguest = %s\nhost = %s\n", value(r.Guest), value(r.Host))
	}
	if r.VM != "" {
		fmt.Fprintf(&b, "vm = %q\n", config.NameAsGlob(r.VM))
	}
	if r.Proto != config.TCP {
		fmt.Fprintf(&b, "proto = %q\n", r.Proto)
	}
	if r.Hold > 0 {
		fmt.Fprintf(&b, "hold = %q\n", r.Hold)
	}
	return b.String()
}

// value is a port as a number, and a range as a text.
func value(p config.Ports) string {
	if p.Len() == 1 {
		return p.String()
	}
	return fmt.Sprintf("%q", p)
}

// forRum reports whether rum understands the rule: one port for one, over TCP.
func (r Rule) forRum() bool { return r.Guest.Len() == 1 && r.Proto == config.TCP }

// insert puts a rule into the text of a project's file, before the first rule that might decide
// in its place, else at the end. Everything else stays as it is, to the byte. It returns
// where the rule is.
func insert(path, text string, r Rule) (with string, at Saved, err error) {
	if _, err := r.Rule("", r.Hold); err != nil {
		return "", Saved{}, err
	}
	was, err := config.ParseProject(path, []byte(text))
	if err != nil {
		return "", Saved{}, fmt.Errorf("it has a mistake, which is to be corrected first: %w", first(err))
	}
	vm := config.DomainName(path)
	shadow := r.Shadow(was.Rules, vm)
	if shadow != nil && shadow == r.Written(was.Rules, vm) && r.isAsWritten(shadow) {
		return text, Saved{Line: shadow.Line}, nil
	}
	if rival := r.Rival(was.Rules, vm); rival != nil {
		return "", Saved{}, &refusal{fmt.Sprintf("%s has host port %d already", rival.Name, max(rival.Host.First, r.Host.First)), ErrTaken}
	}
	for _, at := range places(text, shadow) {
		for _, forRum := range []bool{true, false} {
			if forRum && !r.forRum() {
				continue
			}
			with, line := put(text, at, r.Text(forRum))
			now, err := config.ParseProject(path, []byte(with))
			if err != nil {
				continue // what it says is about a text that nobody has written
			}
			// A text of several lines may look like a place for a rule, and is none.
			is := func(o config.Rule) bool { return o.Line == line && o.Guest == r.Guest && o.Host == r.Host }
			if i := slices.IndexFunc(now.Rules, is); i >= 0 && len(now.Rules) == len(was.Rules)+1 {
				at := Saved{Line: line, Added: true}
				behind, _ := r.Around(now.Rules, vm, now.Rules[i].Name)
				for _, o := range behind {
					at.InPlaceOf = append(at.InPlaceOf, o.Name)
				}
				return with, at, nil
			}
		}
	}
	if shadow != nil {
		return "", Saved{}, byHand("the rule finds no place there: it has to come before what line %d says, which is no table of its own under a [[ports]] or [[forward]]", shadow.Line)
	}
	return "", Saved{}, byHand("the rule finds no place there: it is full, or its rules are in no tables of their own, each under a [[ports]] or [[forward]]")
}

// Above is the line in a file of the first rule that might decide about a VM in the place of
// another one, were that behind it; 0 where none does, and for a file that cannot be read.
func Above(path, vm string, r Rule) (line int) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, config.MaxSize+1))
	if err != nil {
		return 0
	}
	c, err := config.Parse(path, text)
	if err != nil {
		return 0
	}
	if shadow := r.Shadow(c.Rules, vm); shadow != nil {
		return shadow.Line
	}
	return 0
}

// isAsWritten reports whether a rule that maps the same ports does it on the same addresses and
// holds clients as long.
func (r Rule) isAsWritten(o *config.Rule) bool {
	added, err := r.Rule("", r.Hold)
	return err == nil && o.Hold == r.Hold && slices.Equal(o.HostIP, added.HostIP)
}

func first(err error) error {
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		return all.Unwrap()[0]
	}
	return err
}

// places are where a rule may be put so that it comes before another, in bytes from the start and
// the best first: before the comments right above that, and behind them. Without another it is
// the end.
func places(text string, before *config.Rule) []int {
	if before == nil {
		return []int{len(text)}
	}
	starts := []int{0}
	for i, c := range text {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	header := before.Line - 1
	comments := header
	for comments > 0 && strings.HasPrefix(strings.TrimSpace(text[starts[comments-1]:starts[comments]]), "#") {
		comments--
	}
	return []int{starts[comments], starts[header]}
}

const bom = "\xef\xbb\xbf"

// put has an empty line between a rule and what is beside it.
func put(text string, at int, rule string) (with string, line int) {
	if at == 0 && strings.HasPrefix(text, bom) {
		at = len(bom)
	}
	before, after := text[:at], text[at:]
	switch {
	case after != "":
		rule += "\n"
	case before != "" && !strings.HasSuffix(before, "\n"):
		rule = "\n\n" + rule
	case strings.TrimPrefix(before, bom) != "":
		rule = "\n" + rule
	}
	line = 1 + strings.Count(before, "\n") + len(rule) - len(strings.TrimLeft(rule, "\n"))
	if strings.Contains(text, "\r\n") {
		rule = strings.ReplaceAll(rule, "\n", "\r\n")
	}
	return before + rule + after, line
}
