package main

import (
	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/ask"
)

func newOpen(s *shared) *cobra.Command {
	var (
		about ask.Port
		print bool
	)
	c := &cobra.Command{
		Use:   "open PORT",
		Short: "Open a port of a VM in the browser",
		Long: `Open a port of a VM in the browser, with xdg-open: PORT as it is on this host, or else
in the VM. The URL is https where the service speaks TLS, which it is asked.`,
		Example: "  rum-host-agent open 8080\n  curl $(rum-host-agent open 8080 --print)",
		Args:    exactlyOne("PORT"),
		RunE: func(c *cobra.Command, args []string) error {
			return about.Open(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), s.socket, args[0], print)
		},
	}
	c.Flags().StringVar(&about.VM, "vm", "", "the `VM`; without it any")
	c.Flags().BoolVar(&print, "print", false, "print the URL, and open nothing")
	return c
}
