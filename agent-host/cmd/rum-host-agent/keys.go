package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/vmflag"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

func newKeys() *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Show, make and forget the keys of VMs",
		Long: `Show, make and forget the keys of VMs. A key is what a VM and this host prove to each
other; cloudinit and install make one where there is none, and bring it into the VM.
A running agent uses what is changed here at its next attempt to reach the VM.`,
		Args: noSubcommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newKeysNew(), newKeysList(), newKeysForget(), newKeysRotate(), newKeysBind(), newKeysExport(), newKeysImport())
	return c
}

func newKeysNew() *cobra.Command {
	var uuid string
	c := &cobra.Command{
		Use:   "new VM",
		Short: "Make a key for a VM that has none",
		Args:  exactlyOne("VM"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := vmflag.CheckDomain(args[0]); err != nil {
				return err
			}
			id, err := domainUUID(uuid)
			if err != nil {
				return err
			}
			const done = "A key is made for %[1]s. " + keys.BringIt + "\n"
			return changeKey(c.OutOrStdout(), args[0], done, func(s keys.Store) error { return s.New(args[0], id) })
		},
	}
	c.Flags().StringVar(&uuid, "uuid", "", "the libvirt domain's `UUID`: the key is then for no other")
	return c
}

func newKeysRotate() *cobra.Command {
	return &cobra.Command{
		Use:   "rotate VM",
		Short: "Make another key for a VM",
		Long: `Make another key for a VM. A link that is up stays; the next needs the new key in the VM
too, so bring it there at once.`,
		Args: exactlyOne("VM"),
		RunE: func(c *cobra.Command, args []string) error {
			const done = "%[1]s has another key. " + keys.BringIt + "\n"
			return changeKey(c.OutOrStdout(), args[0], done, func(s keys.Store) error { return s.Rotate(args[0]) })
		},
	}
}

func newKeysExport() *cobra.Command {
	return &cobra.Command{
		Use:   "export VM",
		Short: "Print the key of a VM, for that VM's /etc/rum-agent/key",
		Long: `Print the key of a VM as that VM's /etc/rum-agent/key has it, for a VM that gets its agent
by another way than install or cloudinit. Who has read it passes for the VM, and for its host.`,
		Example: "  rum-host-agent keys export dev | ssh root@192.168.50.101 install -D -m 600 /dev/stdin /etc/rum-agent/key",
		Args:    exactlyOne("VM"),
		RunE: func(c *cobra.Command, args []string) error {
			store, err := keys.Default()
			var key keyfile.Key
			if err == nil {
				key, err = store.Lookup(args[0], "")
			}
			if err != nil {
				return output.Advise(err, keys.Hint(output.Clean(args[0]), err))
			}
			_, err = c.OutOrStdout().Write(key.Encode())
			return err
		},
	}
}

func newKeysForget() *cobra.Command {
	return &cobra.Command{
		Use:   "forget VM",
		Short: "Forget the key of a VM, which then need not prove one",
		Args:  exactlyOne("VM"),
		RunE: func(c *cobra.Command, args []string) error {
			return changeKey(c.OutOrStdout(), args[0], "The key of %s is forgotten.\n", func(s keys.Store) error { return s.Remove(args[0]) })
		},
	}
}

func newKeysBind() *cobra.Command {
	return &cobra.Command{
		Use:   "bind VM UUID",
		Short: "Have the key of a VM be for another libvirt domain",
		Long: `Have the key of a VM be for the libvirt domain with that UUID, and for no other: for
a VM that was undefined and defined anew. See to it that it is the same VM, since any
other of its name would have its trust. The key of a VM that rum made follows its
project, and needs this only where the project was moved: UUID is then rum-ID.`,
		Example: "  rum-host-agent keys bind dev $(virsh domuuid dev)",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return output.Misuse(errors.New("bind takes one VM and one UUID"))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			identity, err := domainIdentity(args[1])
			if err != nil {
				return err
			}
			return changeKey(c.OutOrStdout(), args[0], "The key of %s is for that domain alone.\n", func(s keys.Store) error { return s.Bind(args[0], identityOf(args[0], identity)) })
		},
	}
}

// changeKey does something to a VM's key, and says that it is done.
func changeKey(w io.Writer, name, done string, change func(keys.Store) error) error {
	store, err := keys.Default()
	if err == nil {
		err = change(store)
	}
	if err != nil {
		return output.Advise(err, keys.Hint(output.Clean(name), err))
	}
	_, err = fmt.Fprintf(w, done, output.Clean(name))
	return err
}

func newKeysList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Show which VMs have a key, and for which domain",
		Args:  atMost(0),
		RunE: func(c *cobra.Command, _ []string) error {
			store, err := keys.Default()
			if err != nil {
				return output.Hinted(err, keys.Hint("", err))
			}
			all, err := store.List()
			if err != nil {
				return output.Hinted(err, keys.Hint("", err))
			}
			return printKeys(c.OutOrStdout(), store, all)
		},
	}
}

// printKeys writes what is known of keys, none of the keys themselves.
func printKeys(w io.Writer, store keys.Store, all []keys.Entry) error {
	var b strings.Builder
	if len(all) == 0 {
		fmt.Fprintf(&b, "no keys in %s\n", output.Clean(store.Dir))
	} else {
		rows := [][]output.Cell{output.Plain("VM", "DOMAIN", "MADE", "PROBLEM")}
		for _, e := range all {
			problem := ""
			if e.Err != nil {
				problem = output.CleanError(e.Err.Error())
			}
			rows = append(rows, output.Plain(output.Clean(e.Name), output.OrDash(e.UUID), e.Made.Format("2006-01-02 15:04"), problem))
		}
		output.WriteTable(&b, rows, false)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
