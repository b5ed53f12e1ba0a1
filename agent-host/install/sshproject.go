package install

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/projects"
	"github.com/rum-vm/rum-agent/agent-host/shellword"
)

// destination is where ssh finds a VM: as the user said, else for a VM of rum's at an address that its domain has.
func (t Target) destination(ctx context.Context) (string, error) {
	p := t.Project
	switch {
	case p == nil && t.To == "":
		return t.Name, nil
	case p == nil:
		return t.To, nil
	case strings.Contains(t.To, "@"):
		return t.To, nil
	case t.To != "":
		return asUser(p, t.To)
	}
	conn, err := libvirt.Open(ctx, t.URI)
	if err != nil {
		return "", output.Hinted(err, libvirt.Hint(err))
	}
	defer conn.Close()
	dom, err := conn.Find(ctx, p.Domain)
	switch {
	case err != nil:
		return "", output.Hinted(err, libvirt.Hint(err))
	case dom.State == libvirt.Off:
		return "", output.Advise(fmt.Errorf("%s is off", p.Domain), "start it with: rum up")
	case isOf(dom, p) != nil:
		return "", isOf(dom, p)
	case !dom.BridgeIP.IsValid():
		return "", output.Advise(fmt.Errorf("libvirt knows no address of %s", p.Domain), "wait until it has booted, or name one with --to HOST")
	}
	return asUser(p, dom.BridgeIP.String())
}

// asUser is a host as ssh takes it, with the user of a project's file.
func asUser(p *projects.Project, host string) (string, error) {
	user := p.File.Current().User
	if user == "" {
		return "", output.Advise(fmt.Errorf("%s names a user that is not used", p.File.Path()), "correct [ssh] user or [user] name there, or name another with --to USER@HOST")
	}
	return user + "@" + host, nil
}

// sshAsRum are the options of ssh for the VM of a project, and what to do when it has another host key one day. That is
// kept under rum's id and not under an address, which another VM may have tomorrow.
func sshAsRum(p *projects.Project) (options []string, newKey string, err error) {
	identity := filepath.Join(p.WorkDir, "ssh_ed25519")
	if _, err := os.Stat(identity); err != nil {
		return nil, "", output.Advise(fmt.Errorf("the project's key: %w", err), "rum makes it with the VM: rum up; or go in without ssh: --via qga")
	}
	dir, err := keys.DefaultDir()
	if err != nil {
		return nil, "", err
	}
	known := filepath.Join(filepath.Dir(dir), "known_hosts")
	if err := os.MkdirAll(filepath.Dir(known), 0o700); err != nil {
		return nil, "", err
	}
	alias := keys.ProjectIdentity(p.ID)
	newKey = fmt.Sprintf("if rum made the VM anew, forget the key of the one before with: %s; if not, "+
		"something else answers there, and should not be given a key", shellword.Join("ssh-keygen", "-f", known, "-R", alias))
	return []string{
		"-o", "IdentityFile=" + quoteOption(identity), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile=" + quoteOption(known),
		"-o", "HostKeyAlias=" + alias,
	}, newKey, nil
}

// quoteOption writes a path as one word of ssh_config(5), where percent signs begin tokens.
func quoteOption(path string) string {
	return `"` + strings.NewReplacer("%", "%%", `"`, `\"`, `\`, `\\`).Replace(path) + `"`
}
