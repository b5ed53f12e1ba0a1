package output

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Explanations writes for people why ports answer or do not. Without UTF-8 its marks are words.
func Explanations(w io.Writer, all []status.Explanation, utf8 bool, look Look) error {
	good, bad := marks(utf8)
	var b strings.Builder
	for i, e := range all {
		if i > 0 {
			b.WriteByte('\n')
		}
		what := "does not work"
		if e.Works {
			what = "works, as far as the agent knows"
		}
		b.WriteString(wrapped(fmt.Sprintf("%s %d/%s %s", Clean(e.VM), e.Port, Clean(e.Proto), what), "", look.Width))
		for n, s := range e.Steps {
			mark := bad
			if s.OK {
				mark = good
			}
			fmt.Fprintf(&b, "  %d  ", n+1)
			writeCell(&b, mark, look.Colour)
			// The first line of the text is behind the step's name, the others below it.
			indent := strings.Repeat(" ", 2+1+2+columns(mark.text)+2+nameWidth+2)
			fmt.Fprintf(&b, "  %-*s  %s", nameWidth, Clean(s.Name), strings.TrimPrefix(wrapped(CleanError(s.Text), indent, look.Width), indent))
		}
		if e.Remedy != "" {
			b.WriteString(wrapped("to do: "+CleanHint(e.Remedy), "", look.Width))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// nameWidth is that of the longest name of a step.
const nameWidth = len(status.StepHost)

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
