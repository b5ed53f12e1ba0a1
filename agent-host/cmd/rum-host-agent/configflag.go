package main

import (
	"cmp"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/configfile"
)

// configFlag is the flag --config of the subcommands that read rum.toml.
func configFlag(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "config", "", "configuration `FILE`, such as rum.toml; "+cmp.Or(configfile.DefaultPath(), "none")+" when not given and there")
}
