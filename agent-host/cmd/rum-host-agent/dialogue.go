package main

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxAsked bounds how many ports are asked about one by one.
const maxAsked = 20

// dialogue asks at a terminal. The end of its input answers no to everything.
type dialogue struct {
	in    *bufio.Reader
	out   io.Writer
	ended bool
}

// complete asks what a plan leaves open. It reports whether to write it.
func (d *dialogue) complete(p *plan, path string, exists bool) bool {
	if exists && !d.confirm(fmt.Sprintf("%s exists. Replace it?", clean(path)), false) {
		return false
	}
	p.all = d.confirm("Forward every port that opens in a VM to the same port of localhost?", true)
	for i, s := range p.seen {
		if i == maxAsked {
			fmt.Fprintf(d.out, "%d more ports are listed in the file.\n", len(p.seen)-i)
			break
		}
		if d.ended {
			return false
		}
		if !named(p.rules, s) {
			d.askPort(p, s)
		}
	}
	return d.confirm(fmt.Sprintf("Write %s?", clean(path)), true) && !d.ended
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

// askPort asks where a port should be, and adds a rule if the rest of the file
// does not say so already.
func (d *dialogue) askPort(p *plan, s seenPort) {
	guest := strconv.Itoa(int(s.port))
	for !d.ended {
		answer := d.ask(fmt.Sprintf("%s: host port, or n for none [%s] ", s, guest))
		switch strings.ToLower(answer) {
		case "", "y", "yes":
			answer = guest
		case "n", "no", "none":
			answer = ""
		}
		r := portRule{guest: guest, host: answer, proto: s.proto, comment: strings.Join(s.by, ", ")}
		if answer != "" {
			checked, err := parsePorts(answer + ":" + guest + "/" + s.proto)
			if err != nil {
				fmt.Fprintln(d.out, clean(err.Error()))
				continue
			}
			r.host = checked.host
		}
		otherwise := "" // what becomes of the port without a rule
		if p.all {
			otherwise = guest
		}
		if answer != otherwise {
			p.rules = append(p.rules, r)
		}
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
