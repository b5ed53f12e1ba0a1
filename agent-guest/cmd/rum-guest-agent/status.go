package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	guestagent "github.com/rum-vm/rum-agent/agent-guest"
)

// statusDir is where an agent that systemd or OpenRC runs is told to keep its status.
const statusDir = "RUNTIME_DIRECTORY"

const notRunningHint = "start it with: systemctl start rum-guest-agent, or where there is OpenRC: rc-service rum-guest-agent start; " +
	"one that is started by hand tells if " + statusDir + " names a directory that it may write to, for it and for this"

// status prints what the hosts have made of the ports here.
func status(args []string, stdout io.Writer) error {
	asJSON, help, err := wantsJSON("status", "what became of the ports here on the host", args, stdout)
	if help || err != nil {
		return err
	}
	st, err := guestagent.ReadStatus(cmp.Or(os.Getenv(statusDir), guestagent.StatusDir))
	if errors.Is(err, guestagent.ErrNotRunning) {
		return &problem{err: err, absent: true, hint: notRunningHint}
	}
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(st)
	}
	if len(st.Hosts) == 0 {
		_, err := fmt.Fprintln(stdout, "no host is linked; rum-host-agent status there says why")
		return err
	}
	for _, h := range st.Hosts {
		fmt.Fprintf(stdout, "%s, auth %s\n", cmp.Or(h.Name, "a host"), h.Auth)
		table := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
		for _, p := range h.Ports {
			fmt.Fprintf(table, "  %d/%s\t%s\n", p.Port, p.Proto, outcome(p))
		}
		if err := table.Flush(); err != nil {
			return err
		}
		if len(h.Ports) == 0 {
			fmt.Fprintln(stdout, "  no ports are there")
		}
	}
	return nil
}

// outcome says what became of a port.
func outcome(p guestagent.PortStatus) string {
	switch p.State {
	case "forwarded":
		return fmt.Sprintf("-> localhost:%d on the host", p.HostPort)
	case "elsewhere":
		if p.HostPort == 0 {
			return "-> a socket on the host"
		}
		return fmt.Sprintf("-> %d on the host, at another address than localhost", p.HostPort)
	case "released":
		return "given back on the host, until nothing listens here any more and something does anew"
	case "taken":
		return fmt.Sprintf("waits: %d is taken on the host", p.HostPort)
	case "denied":
		return fmt.Sprintf("waits: %d is not allowed on the host", p.HostPort)
	}
	return "kept in by the host's rules"
}
