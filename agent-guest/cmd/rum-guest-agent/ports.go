package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// ports prints what listens: a table, or with --json an array of listeners as
// package portwatch writes them, each with what would tell this program of its change.
func ports(args []string, stdout io.Writer) error {
	asJSON, help, err := wantsJSON("ports", "the ports that listen here", args, stdout)
	if help || err != nil {
		return err
	}
	var scanner portwatch.Scanner
	defer scanner.Close()
	listeners, err := scanner.Scan()
	if err != nil {
		return advise(err, "check that /proc is mounted and can be read")
	}
	listeners = slices.DeleteFunc(listeners, isFlow)
	if asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(withSources(listeners))
	}
	table := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PROTO\tADDRESS\tPROCESS\tNOTE")
	for _, l := range listeners {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", l.Proto, l.Addr, cmp.Or(l.Process, "-"), note(l))
	}
	return table.Flush()
}

// wantsJSON reads the arguments of a command that prints something, as a table or with
// --json. help says that it was asked for, and given.
func wantsJSON(command, what string, args []string, stdout io.Writer) (asJSON, help bool, err error) {
	flags := pflag.NewFlagSet(command, pflag.ContinueOnError)
	flags.Usage = func() {}
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	switch err := flags.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		_, err = fmt.Fprintf(stdout, "rum-guest-agent %s prints %s.\n\nFlags:\n%s", command, what, flags.FlagUsages())
		return false, true, err
	case err != nil:
		return false, false, misuse(fmt.Errorf("%s: %w", command, err))
	case flags.NArg() > 0:
		return false, false, misuse(fmt.Errorf("%s takes no argument %q", command, flags.Arg(0)))
	}
	return asJSON, false, nil
}

// isFlow reports whether a listener looks like the socket with which an agent that runs
// here talks to a UDP service for a client of the host. That agent does not announce it.
func isFlow(l portlist.Listener) bool {
	_, pid, found := strings.Cut(strings.TrimSuffix(l.Process, "]"), "[")
	if l.Proto != "udp" || !found {
		return false
	}
	its, err := os.Stat("/proc/" + pid + "/exe")
	if err != nil {
		return false
	}
	ours, err := os.Stat("/proc/self/exe")
	return err == nil && os.SameFile(its, ours)
}

// note says what is special about a listener.
func note(l portlist.Listener) string {
	switch {
	case l.Unusable != "":
		return "not announced: " + l.Unusable
	case l.Interface != "":
		return "on interface " + l.Interface + " only"
	case l.Ephemeral:
		return "ephemeral port"
	}
	return "-"
}

// sourced is a listener with what tells of its change.
type sourced struct {
	portlist.Listener
	Source string `json:"source"`
}

func withSources(listeners []portlist.Listener) []sourced {
	lockMemory() // as the agent has it that serves
	sources := portwatch.ProbeSources()
	all := make([]sourced, 0, len(listeners))
	for _, l := range listeners {
		s := sourced{l, sources.TCP}
		if l.Proto == "udp" {
			s.Source = sources.UDP
		}
		all = append(all, s)
	}
	return all
}
