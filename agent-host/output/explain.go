package output

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Explanations writes for people why ports answer or do not. Without UTF-8 its marks are words.
func Explanations(w io.Writer, all []status.Explanation, utf8, colour bool) error {
	good, bad := Cell{"ok", "32"}, Cell{"NO", "31"}
	if utf8 {
		good.text, bad.text = "✓", "✗"
	}
	var b strings.Builder
	for i, e := range all {
		if i > 0 {
			b.WriteByte('\n')
		}
		what := "does not work"
		if e.Works {
			what = "works, as far as the agent knows"
		}
		fmt.Fprintf(&b, "%s %d/%s %s\n", Clean(e.VM), e.Port, Clean(e.Proto), what)
		for n, s := range e.Steps {
			mark := bad
			if s.OK {
				mark = good
			}
			fmt.Fprintf(&b, "  %d  ", n+1)
			writeCell(&b, mark, colour)
			fmt.Fprintf(&b, "  %-12s  %s\n", Clean(s.Name), CleanError(s.Text))
		}
		if e.Remedy != "" {
			b.WriteString("to do: " + CleanHint(e.Remedy) + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// UTF8 reports whether the user's locale says that a terminal has more than ASCII.
func UTF8() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(name); v != "" {
			v = strings.ToUpper(v)
			return strings.Contains(v, "UTF-8") || strings.Contains(v, "UTF8")
		}
	}
	return false
}
