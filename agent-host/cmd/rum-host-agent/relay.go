package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/remote/server"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/peerlog"
)

func newRelay() *cobra.Command {
	var uri string
	c := &cobra.Command{
		Use:   "relay",
		Short: "Carry connections to VMs here, for a host agent on another machine",
		Long: `Carry connections to VMs here, for a host agent on another machine, which starts this by
ssh (rum-host-agent run --host ssh://THIS-HOST) and talks over standard input and output.
It sees the VMs that this user sees under libvirt, connects to their guest agents and to
their addresses on networks of this host, changes nothing, and ends with its input.`,
		Args: atMost(0),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := libvirt.CheckURI(uri); err != nil {
				return output.Misuse(output.Hinted(err, libvirt.Hint(err)))
			}
			log, out := peerlog.Open(c.ErrOrStderr(), slog.LevelWarn, "vm")
			defer out.Close(logGrace)
			watcher := &libvirt.Watcher{URI: uri, HostOnly: config.Default().Network.HostOnly, Log: log}
			useProcessors(1) // all goes through one ssh, and with more each message wakes a thread for every goroutine it passes
			relay := &server.Server{Version: versionOrBuild(), Watch: watcher.Run, Log: log}
			return relay.Serve(c.Context(), endpoint.Stdio())
		},
	}
	c.Flags().StringVar(&uri, "libvirt", "", "libvirt `URI` to find VMs at; the default is $LIBVIRT_DEFAULT_URI, else the system's\nor the user's daemon")
	return c
}
