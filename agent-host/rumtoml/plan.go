package rumtoml

import (
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/config"
)

// Plan is what a new rum.toml is to say.
type Plan struct {
	rules []portRule
	seen  []seenPort
	// all: what no rule names is forwarded too.
	all bool
}

// New returns the plan of a file that forwards what rum-host-agent does without one.
func New() *Plan { return &Plan{all: true} }

// portRule is one rule to write. Without host it ignores guest.
type portRule struct {
	guest, host, proto string
	comment            string // what it is for; may be empty
}

// add has a port forwarded to a host port, or ignored for none, if the rest of the file does not say so already: a port
// below 1024 stays in the guest unless a rule names it.
func (p *Plan) add(s seenPort, host string) {
	guest := strconv.Itoa(int(s.port))
	otherwise := ""
	if p.all && s.port >= 1024 {
		otherwise = guest
	}
	if host != otherwise {
		p.rules = append(p.rules, portRule{guest: guest, host: host, proto: s.proto, comment: strings.Join(s.by, ", ")})
	}
}

// Name adds a rule as a flag names it: [HOST:]GUEST[/PROTO].
func (p *Plan) Name(flag string) error {
	r, err := parsePorts(flag)
	if err == nil {
		p.rules = append(p.rules, r)
	}
	return err
}

// parsePorts reads [HOST:]GUEST[/PROTO].
func parsePorts(s string) (portRule, error) {
	ports, proto, hasProto := strings.Cut(s, "/")
	r := portRule{guest: ports, host: ports}
	if host, guest, both := strings.Cut(ports, ":"); both {
		r.host, r.guest = host, guest
	}
	if hasProto {
		r.proto = proto
	}
	if r.host == "" {
		return r, fmt.Errorf("%q is not [HOST:]GUEST[/PROTO]", s)
	}
	if _, err := config.Parse("", []byte(r.toml())); err != nil {
		e, _ := errors.AsType[*config.Error](err)
		return r, errors.New(e.Text)
	}
	return r, nil
}

// toml writes the rule. Ports are strings, so that a mistake in one is told by
// the same words as in a file.
func (r portRule) toml() string {
	var b strings.Builder
	if r.comment != "" {
		fmt.Fprintf(&b, "# %s\n", r.comment)
	}
	table := "[[forward]]"
	if r.forRum() {
		table = "[[ports]]"
	}
	fmt.Fprintf(&b, "%s\nguest = %s\n", table, portValue(r.guest))
	switch {
	case r.host == "":
		b.WriteString("ignore = true\n")
	case r.host != r.guest || r.forRum():
		fmt.Fprintf(&b, "host = %s\n", portValue(r.host))
	}
	if r.proto != "" && r.proto != string(config.TCP) {
		fmt.Fprintf(&b, "proto = %q\n", r.proto)
	}
	return b.String()
}

// forRum reports whether rum understands the rule as we do: one port to another, of
// TCP. It would refuse or misunderstand all else in [[ports]].
func (r portRule) forRum() bool {
	return isNumber(r.guest) && isNumber(r.host) && (r.proto == "" || r.proto == string(config.TCP))
}

func isNumber(s string) bool {
	return s != "" && s[0] != '0' && strings.Trim(s, "0123456789") == "" && len(s) <= 9
}

// portValue writes a plain number as one.
func portValue(s string) string {
	if isNumber(s) {
		return s
	}
	return fmt.Sprintf("%q", s)
}

//go:embed template.toml
var initText string

// text is the file.
func (p *Plan) text() string {
	var b strings.Builder
	b.WriteString(initText)
	for _, r := range p.rules {
		b.WriteString("\n" + r.toml())
	}
	if len(p.seen) > 0 {
		b.WriteString("\n# Seen in VMs when this was written:\n")
		for _, s := range p.seen {
			b.WriteString("#   " + s.String())
			if s.host != s.port && !named(p.rules, s) {
				fmt.Fprintf(&b, ": stays there without a rule, guest = %d, host = %d", s.port, s.host)
				if s.proto != string(config.TCP) {
					fmt.Fprintf(&b, ", proto = %q", s.proto)
				}
			}
			b.WriteString("\n")
		}
	}
	if !p.all {
		b.WriteString("\n# Nothing else is forwarded.\n[[forward]]\nignore = true\n")
	}
	return b.String()
}
