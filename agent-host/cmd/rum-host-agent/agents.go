package main

import (
	"runtime"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/install"
	"github.com/rum-vm/rum-agent/cloudinit"
)

// agentOptions are the flags that say which guest agents a guest is offered.
type agentOptions struct {
	files []string
	arch  []string
}

func (o *agentOptions) flags(c *cobra.Command) {
	c.Flags().StringArrayVar(&o.files, "agent", nil, "the guest agent's `FILE`; may be repeated, once for each architecture\n(default the one beside rum-host-agent, or in ../lib/rum-agent)")
	c.Flags().StringSliceVar(&o.arch, "arch", []string{runtime.GOARCH}, "the guest's `ARCHITECTURE`, such as amd64 or arm64, to choose the default for --agent by;\nmay be repeated")
}

// read returns the agents that were named, or else those that belong to this program.
func (o *agentOptions) read() ([]cloudinit.Agent, error) { return install.Agents(o.files, o.arch) }
