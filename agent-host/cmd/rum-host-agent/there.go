package main

import (
	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/remote/there"
)

// there runs a command on the host that has the VM, if that is another one. Behind -- comes behind, and files are the flags of files here.
func (s *shared) there(c *cobra.Command, vm string, behind []string, files ...string) (t there.Target, remote bool, err error) {
	t, remote, err = there.Find(c.Context(), s.socket, vm)
	if err != nil || !remote {
		return t, remote, err
	}
	words, err := t.Words(c.Name(), c.Flags(), behind, files...)
	if err == nil {
		err = t.Run(c.Context(), c.InOrStdin(), c.OutOrStdout(), c.ErrOrStderr(), words...)
	}
	return t, true, err
}
