package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

func newKeysImport() *cobra.Command {
	var uuid string
	c := &cobra.Command{
		Use:   "import VM",
		Short: "Take in the key of a VM, from standard input",
		Long: `Take in the key of a VM as export prints it, from standard input: on this host for a VM of
another one, HOST/VM. It is for the VM of that name that proves it first, and from then on
for no other domain; --uuid says from the start which domain that is.`,
		Example: "  ssh server rum-host-agent keys export dev | rum-host-agent keys import server/dev",
		Args:    exactlyOne("VM"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := domainUUID(uuid)
			if err != nil {
				return err
			}
			text, err := io.ReadAll(io.LimitReader(c.InOrStdin(), maxKeyText))
			if err != nil {
				return err
			}
			key, err := keyfile.Parse(text)
			if err != nil {
				return output.Advise(fmt.Errorf("standard input: %w", err), "give it what rum-host-agent keys export prints")
			}
			const done = "The key of %s is kept here.\n"
			err = changeKey(c.OutOrStdout(), args[0], done, func(s keys.Store) error { return s.Keep(args[0], identityOf(args[0], id), key) })
			if errors.Is(err, keys.ErrExists) {
				return output.Advise(err, "if the VM has another now, forget the old one first: rum-host-agent keys forget "+output.Clean(args[0]))
			}
			return err
		},
	}
	c.Flags().StringVar(&uuid, "uuid", "", "the libvirt domain's `UUID`: the key is then for no other")
	return c
}

// maxKeyText bounds what is read of a key, in bytes.
const maxKeyText = 4 << 10

// identityOf is what tells the VM of that name and UUID from all others: of HOST/VM the host counts too. It is empty
// without a UUID.
func identityOf(name, uuid string) string {
	if host, _, remote := strings.Cut(name, "/"); remote && uuid != "" {
		return keys.RemoteIdentity(host, uuid)
	}
	return uuid
}
