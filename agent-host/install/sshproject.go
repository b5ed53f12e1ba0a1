package install

import (
	"context"
	"errors"
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

// sshAsRum are the options of ssh for scripts in the VM of a project, and what to do when it has another host key one day.
func sshAsRum(p *projects.Project) (options []string, newKey string, err error) {
	login, err := LoginOptions(p)
	if known, ok := errors.AsType[*output.Problem](err); ok {
		return nil, "", output.Advise(known.Err, known.Hint+"; or go in without ssh: --via qga")
	}
	if err != nil {
		return nil, "", err
	}
	known, err := KnownHosts()
	if err != nil {
		return nil, "", err
	}
	for _, o := range append(login, "BatchMode=yes") {
		options = append(options, "-o", o)
	}
	newKey = fmt.Sprintf("if rum made the VM anew, forget the key of the one before with: %s; if not, "+
		"something else answers there, and should not be given a key", shellword.Join("ssh-keygen", "-f", known, "-R", keys.ProjectIdentity(p.ID)))
	return options, newKey, nil
}

// LoginOptions are options of ssh_config(5), each as KEY=VALUE, for logins with the key of a project.
func LoginOptions(p *projects.Project) ([]string, error) {
	identity := filepath.Join(p.WorkDir, "ssh_ed25519")
	if _, err := os.Stat(identity); err != nil {
		return nil, output.Advise(fmt.Errorf("the project's key: %w", err), "rum makes it with the VM: rum up")
	}
	host, err := HostKeyOptions(keys.ProjectIdentity(p.ID))
	return append([]string{"IdentityFile=" + quoteOption(identity), "IdentitiesOnly=yes"}, host...), err
}

// HostKeyOptions are options of ssh_config(5) for a host whose key is kept in [KnownHosts] under an alias, and not under an
// address, which another VM may have tomorrow. It is remembered from the first time on, and another one refused.
func HostKeyOptions(alias string) ([]string, error) {
	known, err := KnownHosts()
	return []string{"StrictHostKeyChecking=accept-new", "UserKnownHostsFile=" + quoteOption(known), "HostKeyAlias=" + alias}, err
}

// KnownHosts is the file with the host keys of VMs, whose directory is made. VMs are made anew often: the user's own file
// is no place for them.
func KnownHosts() (string, error) {
	dir, err := keys.DefaultDir()
	if err != nil {
		return "", err
	}
	dir = filepath.Dir(dir)
	return filepath.Join(dir, "known_hosts"), os.MkdirAll(dir, 0o700)
}

// quoteOption writes a path as one word of ssh_config(5), where percent signs begin tokens.
func quoteOption(path string) string {
	return `"` + strings.NewReplacer("%", "%%", `"`, `\"`, `\`, `\\`).Replace(path) + `"`
}
