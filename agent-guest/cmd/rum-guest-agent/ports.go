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
)

// ports prints what listens: a table, or with --json an array of listeners as
// package portwatch writes them, each with what would tell this program of its change.
func ports(args []string, stdout io.Writer) error {
	flags := pflag.NewFlagSet("ports", pflag.ContinueOnError)
	flags.Usage = func() {}
	asJSON := flags.Bool("json", false, "print a JSON array")
	switch err := flags.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		_, err = fmt.Fprintf(stdout, "rum-guest-agent ports prints the ports that listen here.\n\nFlags:\n%s", flags.FlagUsages())
		return err
	case err != nil:
		return misuse(fmt.Errorf("ports: %w", err))
	case flags.NArg() > 0:
		return misuse(fmt.Errorf("ports takes no argument %q", flags.Arg(0)))
	}

	var scanner portwatch.Scanner
	defer scanner.Close()
	listeners, err := scanner.Scan()
	if err != nil {
		return advise(err, "check that /proc is mounted and can be read")
	}
	listeners = slices.DeleteFunc(listeners, isFlow)
	if *asJSON {
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

// isFlow reports whether a listener looks like the socket with which an agent that runs
// here talks to a UDP service for a client of the host. That agent does not announce it.
func isFlow(l portwatch.Listener) bool {
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
func note(l portwatch.Listener) string {
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
	portwatch.Listener
	Source string `json:"source"`
}

func withSources(listeners []portwatch.Listener) []sourced {
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
