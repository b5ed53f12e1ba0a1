package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/projects"
	"github.com/rum-vm/rum-agent/agent-host/shellword"
)

// receive runs a script from standard input, as root: it needs to be a file, because the last part of the one that installs is
// an archive that it reads from itself. The file may have the key in it, and goes whatever happens.
const receive = `set -eu
umask 077
script=$(mktemp)
trap 'rm -f "$script"' EXIT
trap 'exit 1' HUP INT TERM
cat >"$script"
if [ "$(id -u)" = 0 ]; then sh "$script"; elif sudo -n sh -c :; then sudo -n sh "$script"; else exit 77; fi
printf 'rum-host-agent: the script %s\n' 'has run to its end'`

// notRoot is what that exits with where it has not become root: EX_NOPERM of sysexits.h.
const notRoot = 77

// hostKeyRefused is what ssh says last when the host's key is not what it knows.
const hostKeyRefused = "Host key verification failed."

// overSSH runs scripts with ssh. newKey says what to do where the host has another key than it had; empty for what is
// always true.
func overSSH(to string, options []string, newKey string) way {
	const hint = "what went wrong is said above"
	byHand := func(command string) string {
		return shellword.Join(append(append([]string{"ssh"}, options...), "--", to, command)...)
	}
	return way{to: to, hint: hint, run: func(ctx context.Context, script []byte, stdout, stderr io.Writer) error {
		// The login shell there may be one of another family.
		command := "exec sh -c " + shellword.Quote(receive)
		args := append(append([]string{"-T"}, options...), "--", to, command)
		said, end := &tail{w: stderr}, &proof{w: stdout}
		ssh := exec.CommandContext(ctx, "ssh", args...)
		ssh.Stdin, ssh.Stdout, ssh.Stderr = newProgress(stderr, len(script)).reader(bytes.NewReader(script)), end, said
		ssh.Cancel = func() error { return ssh.Process.Signal(syscall.SIGTERM) }
		ssh.WaitDelay = 5 * time.Second
		err := ssh.Run()
		proven := end.check()
		exit, ok := errors.AsType[*exec.ExitError](err)
		switch {
		case err == nil && proven != nil:
			return advise(fmt.Errorf("%s: %w", to, proven), "let that login run commands: the key there has command= in authorized_keys, or sshd has a ForceCommand, "+
				"or its shell is none; see with: "+byHand("id"))
		case errors.Is(err, exec.ErrNotFound):
			return advise(err, "install openssh-client")
		case ok && exit.ExitCode() == notRoot:
			return advise(fmt.Errorf("the login to %s is not root, and has no sudo without a password", to), "go in as root or a user who has, with --to USER@HOST, or allow that user sudo")
		case !ok || exit.ExitCode() != 255: // what ssh itself returns when it fails
			return err
		case strings.Contains(string(said.last), hostKeyRefused):
			hint := "see which key it should have, and connect once by hand with: " + byHand("true")
			if newKey != "" {
				hint = newKey
			}
			return advise(fmt.Errorf("%s does not have the host key that it had", to), hint)
		}
		return advise(fmt.Errorf("cannot reach %s with ssh", to), "try it by hand with: "+byHand("true")+", and name the VM's address with --to USER@HOST")
	}}
}

// tail passes on what is written, and keeps the end of it.
type tail struct {
	w    io.Writer
	last []byte
}

// maxTail is how much is kept, in bytes.
const maxTail = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.last = append(t.last, p[max(0, len(p)-maxTail):]...)
	t.last = t.last[max(0, len(t.last)-maxTail):]
	return t.w.Write(p)
}

// destination is where ssh finds a VM: as the user said, else for a VM of rum's at an address that its domain has.
func (o *reachOptions) destination(ctx context.Context, name string, p *projects.Project) (string, error) {
	switch {
	case p == nil && o.to == "":
		return name, nil
	case p == nil:
		return o.to, nil
	case strings.Contains(o.to, "@"):
		return o.to, nil
	case o.to != "":
		return asUser(p, o.to)
	}
	conn, err := libvirt.Open(ctx, daemonFor(o.uri, p))
	if err != nil {
		return "", hinted(err)
	}
	defer conn.Close()
	dom, err := conn.Find(ctx, p.Domain)
	switch {
	case err != nil:
		return "", hinted(err)
	case dom.State == libvirt.Off:
		return "", advise(fmt.Errorf("%s is off", p.Domain), "start it with: rum up")
	case isOf(dom, p) != nil:
		return "", isOf(dom, p)
	case !dom.BridgeIP.IsValid():
		return "", advise(fmt.Errorf("libvirt knows no address of %s", p.Domain), "wait until it has booted, or name one with --to HOST")
	}
	return asUser(p, dom.BridgeIP.String())
}

// asUser is a host as ssh takes it, with the user of a project's file.
func asUser(p *projects.Project, host string) (string, error) {
	user := p.File.Current().User
	if user == "" {
		return "", advise(fmt.Errorf("%s names a user that is not used", p.File.Path()), "correct [ssh] user or [user] name there, or name another with --to USER@HOST")
	}
	return user + "@" + host, nil
}

// sshAsRum are the options of ssh for the VM of a project, and what to do when it has another host key one day. That is
// kept under rum's id and not under an address, which another VM may have tomorrow.
func sshAsRum(p *projects.Project) (options []string, newKey string, err error) {
	identity := filepath.Join(p.WorkDir, "ssh_ed25519")
	if _, err := os.Stat(identity); err != nil {
		return nil, "", advise(fmt.Errorf("the project's key: %w", err), "rum makes it with the VM: rum up; or go in without ssh: --via qga")
	}
	dir, err := keys.DefaultDir()
	if err != nil {
		return nil, "", err
	}
	known := filepath.Join(filepath.Dir(dir), "known_hosts")
	if err := os.MkdirAll(filepath.Dir(known), 0o700); err != nil {
		return nil, "", err
	}
	alias := hostagent.ProjectIdentity(p.ID)
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
