package rumtoml

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/output"
)

// maxAsked bounds how many ports are listed before they are asked about.
const maxAsked = 20

// dialogue asks at a terminal. The end of its input answers no to everything.
type dialogue struct {
	in    *bufio.Reader
	out   io.Writer
	ended bool
}

// Ask asks at a terminal what is left open of the plan for a file. It reports whether to write it.
func (p *Plan) Ask(in io.Reader, out io.Writer, path string, exists bool) bool {
	d := &dialogue{in: bufio.NewReader(in), out: out}
	return d.complete(p, path, exists)
}

// complete asks what a plan leaves open. It reports whether to write it.
func (d *dialogue) complete(p *Plan, path string, exists bool) bool {
	if exists && !d.confirm(fmt.Sprintf("%s exists. Replace it?", output.Clean(path)), false) {
		return false
	}
	p.all = d.confirm("Forward every port that opens in a VM, from 1024 up, to the same port of localhost?", true)
	d.askPorts(p)
	return d.confirm(fmt.Sprintf("Write %s?", output.Clean(path)), true) && !d.ended
}

// named reports whether a flag has said what is to become of the port.
func named(rules []portRule, s seenPort) bool {
	for _, r := range rules {
		if r.guest == strconv.Itoa(int(s.port)) {
			return true
		}
	}
	return false
}

// fewPorts are asked about one by one, more are at first as one.
const fewPorts = 3

// askPorts asks about the ports that no flag has named.
func (d *dialogue) askPorts(p *Plan) {
	open := slices.DeleteFunc(slices.Clone(p.seen), func(s seenPort) bool { return named(p.rules, s) })
	if len(open) > fewPorts {
		for _, s := range open[:min(len(open), maxAsked)] {
			fmt.Fprintf(d.out, "  %s: %d\n", s, s.host)
		}
		if more := len(open) - maxAsked; more > 0 {
			fmt.Fprintf(d.out, "  and %d more\n", more)
		}
		switch d.chooseAll(len(open)) {
		case "a":
			for _, s := range open {
				p.add(s, strconv.Itoa(int(s.host)))
			}
			return
		case "n":
			for _, s := range open {
				p.add(s, "")
			}
			return
		}
	}
	for _, s := range open {
		if d.ended {
			return
		}
		d.askPort(p, s)
	}
}

// chooseAll asks what becomes of that many ports: a for all, n for none, c to choose.
func (d *dialogue) chooseAll(n int) string {
	for {
		switch strings.ToLower(d.ask(fmt.Sprintf("These %d ports: all to localhost at the port shown, none, or choose one by one? [A/n/c] ", n))) {
		case "", "a", "all":
			return "a"
		case "n", "none", "no":
			return "n"
		case "c", "choose":
			return "c"
		}
		fmt.Fprintln(d.out, "Please answer a, n or c.")
	}
}

// askPort asks where a port should be.
func (d *dialogue) askPort(p *Plan, s seenPort) {
	guest, proposed := strconv.Itoa(int(s.port)), strconv.Itoa(int(s.host))
	for !d.ended {
		host := d.ask(fmt.Sprintf("%s: host port, or n for none [%s] ", s, proposed))
		switch strings.ToLower(host) {
		case "", "y", "yes":
			host = proposed
		case "n", "no", "none":
			host = ""
		}
		if host != "" {
			checked, err := parsePorts(host + ":" + guest + "/" + s.proto)
			if err != nil {
				fmt.Fprintln(d.out, output.Clean(err.Error()))
				continue
			}
			host = checked.host
		}
		p.add(s, host)
		return
	}
}

// confirm asks for yes or no.
func (d *dialogue) confirm(question string, otherwise bool) bool {
	choice := " [y/N] "
	if otherwise {
		choice = " [Y/n] "
	}
	for {
		switch strings.ToLower(d.ask(question + choice)) {
		case "":
			return otherwise && !d.ended
		case "y", "yes":
			return true
		case "n", "no":
			return false
		}
		fmt.Fprintln(d.out, "Please answer y or n.")
	}
}

// ask returns a line without its blanks.
func (d *dialogue) ask(question string) string {
	if d.ended {
		return ""
	}
	fmt.Fprint(d.out, question)
	line, err := d.in.ReadString('\n')
	if err != nil {
		d.ended = true
		fmt.Fprintln(d.out)
	}
	return strings.TrimSpace(line)
}
