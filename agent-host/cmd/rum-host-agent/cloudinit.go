package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/install"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/vmflag"
	"github.com/rum-vm/rum-agent/cloudinit"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// cloudInitOptions are the flags of cloudinit.
type cloudInitOptions struct {
	agents       agentOptions
	output       string
	userData     string
	sshKey       string
	hostname     string
	uuid         string
	natMAC       string
	hostOnlyMAC  string
	userDataOnly bool
	// noUserData: the flag was given, and names no file, as where a variable of a script is empty.
	noUserData bool
}

func newCloudInit() *cobra.Command {
	var o cloudInitOptions
	c := &cobra.Command{
		Use:   "cloudinit NAME -o FILE",
		Short: "Write a seed image that installs the guest agent",
		Long: `Write a seed image that installs the guest agent, with a key, in the VM called NAME
at its first boot. The VM's image needs cloud-init, which cloud images have. A
newer agent in a newer seed replaces the old one at the next boot.

What --user-data names goes into the image as it is. The agent is installed by
vendor-data, which cloud-init keeps apart from it.

The key stays the same for a name, and rum-host-agent run finds it by it.`,
		Example: "  rum-host-agent cloudinit dev -o dev-seed.iso --ssh-key ~/.ssh/id_ed25519.pub\n" +
			"  virt-install --name dev --import --disk dev.qcow2 --disk dev-seed.iso,bus=virtio,readonly=on ...",
		Args: exactlyOne("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			o.noUserData = c.Flags().Changed("user-data") && o.userData == ""
			return o.run(c.Context(), args[0], c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	c.Flags().SortFlags = false
	c.Flags().StringVarP(&o.output, "output", "o", "", "write the image to `FILE`, closed to other users because the key is in it")
	c.Flags().StringVar(&o.userData, "user-data", "", "the user-data of your own, `FILE`, in any format of cloud-init")
	c.Flags().StringVar(&o.sshKey, "ssh-key", "", "let the image's user log in with the public keys in `FILE`")
	c.Flags().StringVar(&o.hostname, "hostname", "", "the VM's host `NAME` (default made from its name)")
	c.Flags().StringVar(&o.natMAC, "nat-mac", "", "the `MAC` address of the network card on the NAT network")
	c.Flags().StringVar(&o.hostOnlyMAC, "hostonly-mac", "", "the `MAC` address of the network card on the host-only network; without either\naddress, the image decides about its network")
	c.Flags().StringVar(&o.uuid, "uuid", "", "the libvirt domain's `UUID`, if it has one already: the key is then for no other")
	o.agents.flags(c)
	c.Flags().BoolVar(&o.userDataOnly, "user-data-only", false, "write one user-data document instead, with the agent in it, for a cloud that\ntakes no image; of the VM's settings it has none but --user-data")
	return c
}

func (o *cloudInitOptions) run(ctx context.Context, name string, stdout, stderr io.Writer) error {
	if o.noUserData {
		return output.Misuse(errors.New(`cloudinit: --user-data "": want a FILE; leave the flag out for none`))
	}
	if o.output == "" {
		return output.Misuse(errors.New("cloudinit: there is no file to write to; give -o FILE"))
	}
	if err := vmflag.CheckDomain(name); err != nil {
		return err
	}
	seed, err := o.seed(name)
	if err != nil {
		return err
	}
	key, err := install.DraftKey(ctx, name, seed.UUID, stderr)
	if err != nil {
		return err
	}
	defer key.Release()
	seed.Key = key.Key
	if o.userDataOnly {
		err = o.writeDocument(seed)
	} else {
		err = seed.WriteISO(o.output)
	}
	if err != nil {
		return err
	}
	if err := key.Keep(); err != nil {
		return err
	}
	info, err := os.Stat(o.output)
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d bytes for %s\n", o.output, info.Size(), name)
	for _, a := range seed.Agents {
		fmt.Fprintf(&b, "  agent for %s, %d bytes\n", a.Arch, len(a.Binary))
	}
	if o.userData != "" {
		fmt.Fprintf(&b, "  user-data of %s, unchanged\n", o.userData)
	}
	fmt.Fprintf(&b, "  key in %s\n", key.Store.Dir)
	if o.userDataOnly {
		// The limits of Amazon EC2 and of OpenStack Nova, the smallest and the most usual.
		fmt.Fprintf(&b, "Many clouds take less: 16384 bytes, or 65535. Compressed with gzip, it is smaller and as good.\n")
	}
	_, err = io.WriteString(stdout, b.String())
	return err
}

// seed reads the files that the flags name.
func (o *cloudInitOptions) seed(name string) (seed *cloudinit.Seed, err error) {
	seed = &cloudinit.Seed{Name: name, Hostname: o.hostname}
	if seed.UUID, err = domainUUID(o.uuid); err != nil {
		return nil, err
	}
	if o.userData != "" {
		if seed.UserData, err = os.ReadFile(o.userData); err != nil {
			return nil, err
		}
		if _, err := cloudinit.CheckUserData(seed.UserData); err != nil {
			return nil, output.Advise(fmt.Errorf("%s: %w", o.userData, err), "cloud-init would not do what it says: correct it, or check it with: cloud-init schema -c "+o.userData)
		}
	}
	if o.sshKey != "" {
		data, err := os.ReadFile(o.sshKey)
		if err != nil {
			return nil, err
		}
		if seed.AuthorizedKeys, err = cloudinit.ParseAuthorizedKeys(data); err != nil {
			return nil, output.Advise(fmt.Errorf("%s: %w", o.sshKey, err), "--ssh-key takes a public key, such as "+filepath.Join("~", ".ssh", "id_ed25519.pub"))
		}
	}
	if seed.NAT, err = macFlag("--nat-mac", o.natMAC); err != nil {
		return nil, err
	}
	if seed.HostOnly, err = macFlag("--hostonly-mac", o.hostOnlyMAC); err != nil {
		return nil, err
	}
	seed.Agents, err = o.agents.read()
	return seed, err
}

func (o *cloudInitOptions) writeDocument(seed *cloudinit.Seed) error {
	doc, err := seed.UserDataOnly()
	if err != nil {
		return err
	}
	return keyfile.WritePrivate(o.output, doc)
}

// macFlag reads a MAC address; none for no value.
func macFlag(flag, value string) (net.HardwareAddr, error) {
	if value == "" {
		return nil, nil
	}
	mac, err := net.ParseMAC(value)
	if err != nil || len(mac) != 6 {
		return nil, output.Misuse(fmt.Errorf("%s %q: want a MAC address, such as 52:54:00:12:34:56", flag, value))
	}
	return mac, nil
}
