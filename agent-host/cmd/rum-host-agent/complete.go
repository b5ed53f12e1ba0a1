package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/rum-vm/rum-agent/agent-host/complete"
)

// completeWords has shells complete what commands take by the names that their usage has for it: VM, PORT, STATE and LEVEL.
func completeWords(c *cobra.Command, s *shared) {
	for _, sub := range c.Commands() {
		completeWords(sub, s)
	}
	words := strings.Fields(c.Use)[1:]
	if c.ValidArgsFunction == nil && c.Name() != "help" {
		c.ValidArgsFunction = func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			if len(args) < len(words) {
				return offered(c, s, words[len(args)], args, words, begun)
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
	}
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		switch name, _ := pflag.UnquoteUsage(f); name {
		case "VM", "PORT", "STATE", "LEVEL":
			_ = c.RegisterFlagCompletionFunc(f.Name, func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
				return offered(c, s, name, args, words, begun)
			})
		}
	})
}

// offered are the words that may be what a command calls so, of which begun is typed; args are those before it, and
// words what it calls them.
func offered(c *cobra.Command, s *shared, what string, args, words []string, begun string) ([]string, cobra.ShellCompDirective) {
	from := complete.Source{Socket: s.socket, Begun: begun}
	vm, positional := "", len(words) > 0 && strings.Trim(words[0], "[].") == "VM"
	if f := c.Flags().Lookup("vm"); f != nil {
		vm = f.Value.String()
	} else if positional && len(args) > 0 {
		vm = args[0]
	}
	proto := ""
	if udp := c.Flags().Lookup("udp"); udp != nil {
		proto = map[string]string{"true": "udp", "false": "tcp"}[udp.Value.String()]
	} else if c.Name() != "status" {
		proto = "tcp"
	}
	var all []string
	switch strings.Trim(what, "[].") {
	case "VM", "DOMAIN":
		all = from.VMs(c.Context())
	case "HOST:]GUEST":
		if c.Name() == "rm" {
			all = from.Added(c.Context(), vm, proto)
			break
		}
		all = from.Ports(c.Context(), vm, proto, complete.Guest)
	case "PORT":
		where := complete.Guest | complete.Here
		switch c.Name() {
		case "proxy":
			where = complete.Guest
		case "release":
			where = complete.Here
		}
		all = from.Ports(c.Context(), vm, proto, where)
	case "STATE":
		all = from.States(c.Context())
	case "LEVEL":
		all = []string{"debug", "info", "warn", "error"}
	}
	return all, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}
