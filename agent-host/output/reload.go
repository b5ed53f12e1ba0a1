package output

import (
	"io"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Reloaded writes for people which configuration files there are, and whether each counts. It reports whether all do.
func Reloaded(w io.Writer, config status.Config, projects []status.Config, look Look) (good bool, err error) {
	var b strings.Builder
	good = true
	for _, c := range append([]status.Config{config}, projects...) {
		whose := ""
		if c.VM != "" {
			whose = " of " + Clean(c.VM)
		}
		switch {
		case c.Error != "":
			good = false
			b.WriteString(wrapped(Clean(c.File)+whose+" is not used:", "", look.Width))
			b.WriteString(wrapped(CleanError(c.Error), "  ", look.Width))
		case c.Found:
			b.WriteString(wrapped(Clean(c.File)+whose+" is in use", "", look.Width))
		default:
			b.WriteString(wrapped("there is no "+Clean(c.File)+"; the default rules are in use", "", look.Width))
		}
		for _, text := range c.Warnings {
			b.WriteString(wrapped(CleanError(text), "  ", look.Width))
		}
	}
	_, err = io.WriteString(w, b.String())
	return good, err
}
