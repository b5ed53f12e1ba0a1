package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/projects"
)

// reachAsRum returns where ssh finds the VM of a project, and with which options.
func reachAsRum(ctx context.Context, p *projects.Project) (to string, options []string, err error) {
	conn, err := libvirt.Open(ctx, p.URI())
	if err != nil {
		return "", nil, hinted(err)
	}
	defer conn.Close()
	dom, err := conn.Find(ctx, p.Domain)
	switch {
	case err != nil:
		return "", nil, hinted(err)
	case dom.State == libvirt.Off:
		return "", nil, advise(fmt.Errorf("%s is off", p.Domain), "start it with: rum up")
	case !dom.BridgeIP.IsValid():
		return "", nil, advise(fmt.Errorf("libvirt knows no address of %s", p.Domain), "wait until it has booted, or name one with --to USER@HOST")
	}
	options, err = sshAsRum(p)
	return p.File.Current().User + "@" + dom.BridgeIP.String(), options, err
}

// sshAsRum are the options of ssh for the VM of a project. Its host key is kept under rum's id and not under an address,
// which another VM may have tomorrow.
func sshAsRum(p *projects.Project) ([]string, error) {
	dir, err := keys.DefaultDir()
	if err != nil {
		return nil, err
	}
	known := filepath.Join(filepath.Dir(dir), "known_hosts")
	if err := os.MkdirAll(filepath.Dir(known), 0o700); err != nil {
		return nil, err
	}
	return []string{
		"-i", filepath.Join(p.WorkDir, "ssh_ed25519"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile=" + quoteOption(known),
		"-o", "HostKeyAlias=" + hostagent.ProjectIdentity(p.ID),
	}, nil
}

// quoteOption writes a path as one word of ssh_config(5), where percent signs begin tokens.
func quoteOption(path string) string {
	var out []byte
	for _, c := range []byte(path) {
		if c == '%' {
			out = append(out, '%')
		}
		out = append(out, c)
	}
	return `"` + string(out) + `"`
}

// keyOwner is whom the key of a project's VM is for: the project, unless it was made for one of the UUIDs of its domain.
func keyOwner(name string, p *projects.Project) string {
	identity := hostagent.ProjectIdentity(p.ID)
	store, err := keyStore()
	if err != nil {
		return identity
	}
	if _, err := store.Lookup(name, identity); errors.Is(err, keys.ErrOtherDomain) && !boundToProject(store, name) {
		return ""
	}
	return identity
}
