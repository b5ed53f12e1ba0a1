package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

func newExplain(s *shared) *cobra.Command {
	var about ask.Port
	c := &cobra.Command{
		Use:   "explain PORT",
		Short: "Tell step by step why a port answers or does not",
		Long: `Tell step by step why a port, which it has in the VM or here, answers or does not: who
listens in the VM, which rule decides, who has the host address, how the VM is reached,
and the one thing to do. It tries nothing, and exits 0 whatever it tells, 1 where there
is no such VM, and 3 where no agent runs. A VM of another host may come before the port.`,
		Example: "  rum-host-agent explain 8080\n  rum-host-agent explain 53 --udp --vm dev\n  rum-host-agent explain server/dev 8080",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 2 && about.VM == "" && strings.Contains(args[0], "/") {
				return nil
			}
			return exactlyOne("PORT")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 2 {
				about.VM, args = args[0], args[1:]
			}
			about.Look, about.UTF8 = output.Look{Colour: output.Colours(os.Stdout), Width: output.Width(os.Stdout)}, output.UTF8()
			return about.Explain(c.Context(), c.OutOrStdout(), s.socket, args[0])
		},
	}
	c.Flags().StringVar(&about.VM, "vm", "", "the `VM`; without it all are looked at")
	c.Flags().BoolVar(&about.UDP, "udp", false, "a UDP port")
	c.Flags().BoolVar(&about.JSON, "json", false, "print JSON")
	return c
}
