package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

func newWait(s *shared) *cobra.Command {
	var (
		about   ask.Port
		timeout time.Duration
		path    string
	)
	c := &cobra.Command{
		Use:   "wait PORT",
		Short: "Wait until a port answers",
		Long: `Wait until a port, which it has in the VM or here, answers through its forward: until the
service in the VM has taken a connection, or with --http given an answer below 500. A UDP
port answers when it is forwarded and a program listens. VMs that are not there yet are
waited for.

It exits 0 when the port answers, 1 when the time is up or it is interrupted, 2 on bad usage, and 3 where no
agent runs, or it ends.`,
		Example: "  rum-host-agent wait 8080 --timeout 1m && npm test\n  rum-host-agent wait 8080 --http /healthz",
		Args:    exactlyOne("PORT"),
		RunE: func(c *cobra.Command, args []string) error {
			if path == "" && c.Flags().Changed("http") {
				return output.Misuse(errors.New("--http \"\": want a path that begins with /"))
			}
			return about.Wait(c.Context(), s.socket, args[0], path, timeout)
		},
	}
	c.Flags().StringVar(&about.VM, "vm", "", "the `VM`; without it any")
	c.Flags().BoolVar(&about.UDP, "udp", false, "a UDP port")
	c.Flags().DurationVar(&timeout, "timeout", 0, "give up after this `DURATION`, such as 30s; 0 is never (the default)")
	c.Flags().StringVar(&path, "http", "", "ask for this `PATH` over HTTP, such as /")
	return c
}
