package main

import (
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/page"
)

func newDashboard(s *shared) *cobra.Command {
	var print bool
	c := &cobra.Command{
		Use:   "dashboard",
		Short: "Open the agent's page in the browser",
		Long: `Open the agent's page in the browser: VMs and forwards as they come and go, what needs
seeing to first, why a port answers or not, and forwards to add, remove and release.

The link holds once, and for a minute. The browser finds it in a file of
XDG_RUNTIME_DIR that only this user can read: every user can read a command line.`,
		Example: "  rum-host-agent dashboard\n  rum-host-agent dashboard --print",
		Args:    atMost(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return ask.Dashboard(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), s.socket, print)
		},
	}
	c.Flags().BoolVar(&print, "print", false, "print the link, and open nothing")
	return c
}

// pageAddresses are those of --http; nil for none.
func (o *runOptions) pageAddresses() ([]netip.AddrPort, error) {
	if o.http == "none" {
		return nil, nil
	}
	all, err := page.ParseAddresses(o.http)
	if err != nil {
		return nil, output.Misuse(fmt.Errorf("--http %q: %w", o.http, err))
	}
	return all, nil
}
