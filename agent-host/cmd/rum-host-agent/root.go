package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

// shared are the flags of all subcommands.
type shared struct {
	socket string
}

func newRoot() *cobra.Command {
	var s shared
	root := &cobra.Command{
		Use:           "rum-host-agent",
		Short:         "Makes the ports of VMs reachable on this host",
		Long:          "rum-host-agent makes a service that listens in a VM answer at the same port of\nlocalhost on the host.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noSubcommand,
		Version:       versionOrBuild(),
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetVersionTemplate("rum-host-agent {{.Version}}\n") // as version says it
	root.SetHelpCommand(newHelp())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return output.Misuse(output.FlagError(err)) })
	root.PersistentFlags().StringVar(&s.socket, "socket", control.DefaultSocket(), "`PATH` of the control socket")
	root.AddCommand(newRun(&s), newStatus(&s), newWatch(&s), newExplain(&s), newWait(&s), newDoctor(&s), newLogs(&s), newProxy(&s), newSSH(&s), newSSHConfig(&s), newOpen(&s), newDashboard(&s),
		newForward(&s), newRelease(&s), newReload(&s),
		newSetup(&s), newNetwork(), newInit(&s), newRelay(),
		newCloudInit(), newInstall(&s), newUpgrade(&s), newUninstall(), newKeys(), newVersion())
	completeWords(root, &s)
	mendCompletion(root)
	return root
}

// noSubcommand is a cobra argument check for a command that only has subcommands.
func noSubcommand(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return unknownCommand(c, args[0])
	}
	return nil
}

// unknownCommand says which of the subcommands might be meant.
func unknownCommand(c *cobra.Command, name string) error {
	err := fmt.Errorf("unknown command %q", name)
	c.SuggestionsMinimumDistance = 2 // cobra's default, which it sets elsewhere
	like := c.SuggestionsFor(name)
	if len(like) == 0 {
		return output.Misuse(err)
	}
	for i, l := range like {
		like[i] = c.CommandPath() + " " + l
	}
	return output.Misuse(output.Advise(err, "did you mean: "+strings.Join(like, ", or ")+"?"))
}

// newHelp is cobra's own help, which takes any word for a command, as one that fails.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Explain a command",
		RunE: func(c *cobra.Command, args []string) error {
			found, rest, err := c.Root().Find(args)
			if found == nil {
				found = c.Root()
			}
			if err != nil || len(rest) > 0 {
				return unknownCommand(found, append(rest, args...)[0])
			}
			return found.Help()
		},
	}
}

// atMost is a cobra argument check whose failure is bad usage.
func atMost(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > n {
			return output.Misuse(fmt.Errorf("%s: unexpected argument %q", c.Name(), args[n]))
		}
		return nil
	}
}
