package main

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/config"
)

// plan is what a new rum.toml is to say.
type plan struct {
	rules []portRule
	seen  []seenPort
	// all: what no rule names is forwarded too.
	all bool
}

// portRule is one rule to write. Without host it ignores guest.
type portRule struct {
	guest, host, proto string
	comment            string // what it is for; may be empty
}

// seenPort is a port that listens in VMs.
type seenPort struct {
	port  uint16
	host  uint16 // the one proposed: another than port where that is low
	proto string
	by    []string // VMs and programs, safe to print
}

func describeSeen(vm, process string) string {
	if process == "" {
		return clean(vm)
	}
	return clean(process) + " in " + clean(vm)
}

// addSeen keeps one entry for each port, in their order.
func addSeen(seen []seenPort, p seenPort) []seenPort {
	i, found := slices.BinarySearchFunc(seen, p, func(a, b seenPort) int {
		if a.port != b.port {
			return int(a.port) - int(b.port)
		}
		return strings.Compare(a.proto, b.proto)
	})
	if found {
		seen[i].by = append(seen[i].by, p.by...)
		slices.Sort(seen[i].by) // the agent tells them in the order in which they were announced
		return seen
	}
	return slices.Insert(seen, i, p)
}

func (p seenPort) String() string {
	by := p.by
	const most = 3
	if len(by) > most {
		by = append(slices.Clone(by[:most]), "others")
	}
	return fmt.Sprintf("%d/%s (%s)", p.port, clean(p.proto), strings.Join(by, ", "))
}

// leaveApart moves what is proposed for low ports away from the host ports of the others.
func leaveApart(seen []seenPort) {
	taken := map[uint16]bool{}
	for _, s := range seen {
		if s.host == s.port {
			taken[s.host] = true
		}
	}
	for i := range seen {
		s := &seen[i]
		if s.host == s.port {
			continue
		}
		for taken[s.host] {
			s.host++
		}
		taken[s.host] = true
	}
}

// add has a port forwarded to a host port, or ignored for none, if the rest of the file does not say so already: a port
// below 1024 stays in the guest unless a rule names it.
func (p *plan) add(s seenPort, host string) {
	guest := strconv.Itoa(int(s.port))
	otherwise := ""
	if p.all && s.port >= 1024 {
		otherwise = guest
	}
	if host != otherwise {
		p.rules = append(p.rules, portRule{guest: guest, host: host, proto: s.proto, comment: strings.Join(s.by, ", ")})
	}
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

//go:embed init.toml
var initText string

// text is the file.
func (p *plan) text() string {
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
