package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

var errNoHostOnly = errors.New("rum.toml asks for no host-only network")

func newNetwork() *cobra.Command {
	c := &cobra.Command{
		Use:   "network",
		Short: "Show the host-only network",
		Args:  noSubcommand,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newNetworkStatus())
	return c
}

func newNetworkStatus() *cobra.Command {
	var o libvirtOptions
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the host-only network and its leases",
		Args:  atMost(0),
		RunE: func(c *cobra.Command, _ []string) error {
			conn, network, err := o.open(c.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			if network.HostOnly == "" {
				return output.Advise(errNoHostOnly, "set host_only under [network]")
			}
			n, err := conn.NetworkStatus(c.Context(), network.HostOnly)
			if err != nil {
				return output.Hinted(err, libvirt.Hint(err))
			}
			return printNetwork(c.OutOrStdout(), n, time.Now())
		},
	}
	o.flags(c)
	return c
}

// printNetwork writes a network and its leases for people.
func printNetwork(w io.Writer, n libvirt.Network, now time.Time) error {
	var b strings.Builder
	if !n.Exists {
		fmt.Fprintf(&b, "%s  absent; rum-host-agent setup DOMAIN makes it\n", output.Clean(n.Name))
		_, err := io.WriteString(w, b.String())
		return err
	}
	parts := []string{output.Clean(n.Name), "inactive", n.Subnet.String(), "bridge " + output.OrDash(n.Bridge), "dhcp " + output.OrDash(n.DHCP)}
	if n.Active {
		parts[1] = "active"
	}
	if !n.Autostart {
		parts = append(parts, "not started with libvirt")
	}
	if n.Forward != "" {
		parts = append(parts, "forwards ("+output.Clean(n.Forward)+"): not host-only")
	}
	b.WriteString(strings.Join(parts, "  ") + "\n")
	if len(n.Leases) > 0 {
		rows := [][]output.Cell{output.Plain("IP", "MAC", "VM", "HOSTNAME", "EXPIRES")}
		for _, l := range n.Leases {
			rows = append(rows, output.Plain(l.IP.String(), output.Clean(l.MAC), output.OrDash(l.Domain), output.OrDash(l.Hostname),
				"in "+l.Expires.Sub(now).Round(time.Second).String()))
		}
		output.WriteTable(&b, rows, false)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
