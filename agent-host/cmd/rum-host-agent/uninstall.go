package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/vmflag"
)

func newUninstall() *cobra.Command {
	var o reachOptions
	c := &cobra.Command{
		Use:   "uninstall VM [--to DESTINATION | --via qga] [-- SSH-OPTION...]",
		Short: "Remove the guest agent from a running VM, over ssh",
		Long: `Remove the guest agent, its key and its service from a running VM, which is reached as
install does it. This host keeps the VM's key; rum-host-agent keys forget VM forgets it.`,
		Example: "  rum-host-agent uninstall dev --to debian@192.168.50.101",
		Args:    vmAndSSHOptions,
		RunE: func(c *cobra.Command, args []string) error {
			return uninstall(c.Context(), &o, args[0], args[1:], c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	o.flags(c)
	return c
}

func uninstall(ctx context.Context, o *reachOptions, name string, sshOptions []string, stdout, stderr io.Writer) error {
	if err := vmflag.CheckDomain(name); err != nil {
		return err
	}
	if err := o.target(name, sshOptions, stderr).Uninstall(ctx, stdout, stderr); err != nil {
		return err
	}
	store, err := keys.Default()
	if err != nil {
		return err
	}
	if _, err := store.Lookup(name, ""); err == nil {
		fmt.Fprintf(stdout, "this host still has the key of %[1]s; forget it with: rum-host-agent keys forget %[1]s\n", output.Clean(name))
	}
	return nil
}
