package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/agent-host/userconfig"
)

const (
	nameLibvirt = "libvirt"
	nameNetwork = "network"
)

// daemons are the libvirt daemons that VMs are looked for at: by the agent, or else by one that would be started.
func (x *exam) daemons() (uris []string) {
	if x.agentErr == nil {
		for _, d := range x.agent.Discovery {
			if d.Host == "" {
				uris = append(uris, d.Source)
			}
		}
		return uris
	}
	if uri := libvirt.DefaultURI(); uri != libvirt.None {
		uris = append(uris, uri)
	}
	return uris
}

// libvirtDaemons opens each, and looks at what is there of networks.
func libvirtDaemons(ctx context.Context, x *exam) (all []status.Check) {
	for _, uri := range x.daemons() {
		conn, err := libvirt.Open(ctx, uri)
		if err != nil {
			all = append(all, ill(nameLibvirt, cmp.Or(groupRemedy(err), libvirt.Hint(err), "see what it says: journalctl -u libvirtd"), "%s: %v", uri, err))
			continue
		}
		all = append(all, well(nameLibvirt, "%s answers", uri))
		all = append(all, hostOnlyNetwork(ctx, conn, uri)...)
		if err := conn.Close(); err != nil {
			all = append(all, ill(nameLibvirt, "see what it says: journalctl -u libvirtd", "%s: %v", uri, err))
		}
	}
	return all
}

// libvirtGroup is whose members may use the system's daemon, in Debian, Fedora and others.
const libvirtGroup = "libvirt"

// groupRemedy is for who was added to the group and has not logged in since; empty for others.
func groupRemedy(err error) string {
	if !errors.Is(err, fs.ErrPermission) {
		return ""
	}
	group, gerr := user.LookupGroup(libvirtGroup)
	me, uerr := user.Current()
	if gerr != nil || uerr != nil {
		return ""
	}
	listed, _ := me.GroupIds() // by the database
	now, _ := os.Getgroups()   // of this process
	gid, err := strconv.Atoi(group.Gid)
	if err != nil || !slices.Contains(listed, group.Gid) || slices.Contains(now, gid) {
		return ""
	}
	return "this user is in the group libvirt since the last login: log in again, or get a shell with: newgrp " + libvirtGroup
}

// hostOnlyNetwork looks at the network that rum.toml names. One that is not there is made by setup.
func hostOnlyNetwork(ctx context.Context, conn *libvirt.Conn, uri string) []status.Check {
	file, err := userconfig.Open("", "")
	if err != nil {
		return nil // told with the configuration
	}
	name := file.Current().Network.HostOnly
	if name == "" {
		return nil
	}
	n, err := conn.NetworkStatus(ctx, name)
	virsh := "virsh -c " + uri
	switch {
	case err != nil:
		return []status.Check{ill(nameNetwork, cmp.Or(libvirt.Hint(err), "see them with: "+virsh+" net-list --all"), "%v", err)}
	case !n.Exists:
		return []status.Check{well(nameNetwork, "there is no %s; rum-host-agent setup makes it for a VM", name)}
	case !n.Active:
		return []status.Check{ill(nameNetwork, "start it with: "+virsh+" net-start "+name, "%s is not active: VMs have no address there", name)}
	case !n.Autostart:
		return []status.Check{ill(nameNetwork, "have it started with libvirt, with: "+virsh+" net-autostart "+name, "%s is active, and will not be after the next boot", name)}
	case n.Forward != "":
		return []status.Check{ill(nameNetwork, "name another one under [network] in rum.toml, or see this one with: "+virsh+" net-dumpxml "+name,
			"%s forwards (%s), and is not host-only", name, n.Forward)}
	}
	return []status.Check{well(nameNetwork, "%s is active", name)}
}

// domain is what libvirt knows of a VM that no agent serves.
func (x *exam) domain(ctx context.Context) []status.Check {
	uris := x.daemons()
	if len(uris) == 0 && libvirt.DefaultURI() != libvirt.None {
		uris = []string{libvirt.DefaultURI()}
	}
	last := errors.New("nothing is known of it, because libvirt cannot be asked")
	for _, uri := range uris {
		conn, err := libvirt.Open(ctx, uri)
		if err != nil {
			continue // told with libvirt
		}
		dom, err := conn.Find(ctx, x.VM)
		_ = conn.Close()
		if err != nil {
			last = fmt.Errorf("no agent serves it, and libvirt neither: %w", err)
			continue
		}
		virsh := "virsh -c " + uri
		switch {
		case dom.State == libvirt.Off:
			return []status.Check{ill(x.VM, "start it with: "+virsh+" start "+dom.Name, "it is off")}
		case dom.State == libvirt.Paused:
			return []status.Check{ill(x.VM, "go on with: "+virsh+" resume "+dom.Name, "it is paused")}
		case dom.Problem != "":
			return []status.Check{ill(x.VM, "give it a device with: rum-host-agent setup "+dom.Name, "%s", dom.Problem)}
		}
		return []status.Check{well(x.VM, "it runs, and is reached at %s", dom.Endpoint)}
	}
	return []status.Check{ill(x.VM, cmp.Or(libvirt.Hint(last), "see which there are with: "+ask.Command(x.Socket, "status")), "%v", last)}
}
