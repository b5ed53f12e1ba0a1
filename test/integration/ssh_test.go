package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/test/rumproject"
	"github.com/rum-vm/rum-agent/test/sshd"
)

// sshVM is a guest that has an OpenSSH server at port 22 of its loopback interface, and no network to the host.
type sshVM struct {
	host   *hostAgent
	server *sshd.Server
	guest  *guestVM
	config string // of ssh, as ssh-config prints it
}

// newSSHVM makes the VM of a project of rum's, with the project's key.
func newSSHVM(t *testing.T) *sshVM {
	t.Helper()
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	t.Setenv("XDG_STATE_HOME", filepath.Join(t.TempDir(), "100% mine"))
	_, workDir := rumproject.New(t, filepath.Join(os.Getenv("XDG_DATA_HOME"), "rum"), "shop.rum.toml", "")
	identity := filepath.Join(workDir, "ssh_ed25519")
	sshd.NewKey(t, identity)
	vm := &sshVM{guest: newGuest(t, "shop"), server: sshd.New(t, netip.MustParseAddrPort("127.0.0.1:22"), identity, "Subsystem sftp internal-sftp\n")}
	where, err := os.ReadFile(filepath.Join(workDir, "config_path"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(string(where), fmt.Appendf(nil, "[user]\nname = %q\n", vm.server.User), 0o600); err != nil {
		t.Fatal(err)
	}
	vm.startServer(t)
	vm.host = startHost(t, "", vm.guest)
	vm.host.awaitListed(t, "shop", 22)
	vm.config = filepath.Join(t.TempDir(), "config")
	out, err := vm.run(t, nil, filepath.Join(bin, "rum-host-agent"), "ssh-config", "--socket", vm.host.socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(vm.config, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	return vm
}

func (vm *sshVM) startServer(t *testing.T) {
	t.Helper()
	vm.guest.do(t, func() error {
		// For a server that is not root.
		_ = os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0o600)
		vm.server.Start(t)
		return nil
	})
	vm.guest.awaitAnswer(t, "127.0.0.1:22", "SSH-2.0")
}

// run runs a program of the host that uses ssh.
func (vm *sshVM) run(t *testing.T, stdin []byte, name string, args ...string) (stdout string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.WaitDelay = time.Second
	c.Env = append(os.Environ(), "GIT_SSH_COMMAND=ssh -F "+vm.config, "RSYNC_RSH=ssh -F "+vm.config, "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
	c.Stdin = bytes.NewReader(stdin)
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	if err = c.Run(); err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			exit.Stderr = errOut.Bytes()
			return out.String(), exit
		}
		if errors.Is(err, exec.ErrNotFound) {
			t.Fatalf("%v: install git, openssh-client and rsync", err)
		}
	}
	return out.String(), err
}

// ssh is rum-host-agent ssh.
func (vm *sshVM) ssh(t *testing.T, stdin []byte, command ...string) (stdout string, code int, said string) {
	t.Helper()
	out, err := vm.run(t, stdin, filepath.Join(bin, "rum-host-agent"), append([]string{"ssh", "shop", "--socket", vm.host.socket, "--"}, command...)...)
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return out, 0, ""
	case ok:
		return out, exit.ExitCode(), string(exit.Stderr)
	}
	t.Fatal(err)
	return "", 0, ""
}

// must fails the test unless a program succeeds.
func (vm *sshVM) must(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := vm.run(t, nil, name, args...); err != nil {
		said := ""
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			said = string(exit.Stderr)
		}
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, said)
	}
}

func TestSSHGoesThroughTheAgentAndExitsAsSSHDoes(t *testing.T) {
	vm := newSSHVM(t)
	much := bytes.Repeat([]byte("a line of many\n"), 300_000)
	if out, code, said := vm.ssh(t, much, "cat"); code != 0 || out != string(much) {
		t.Errorf("exit status %d, %d bytes of %d came back: %s", code, len(out), len(much), said)
	}
	if out, code, said := vm.ssh(t, nil, "echo $0 'two words'; exit 7"); code != 7 || !strings.HasSuffix(out, " two words\n") {
		t.Errorf("exit status %d, %q: %s", code, out, said)
	}
	// It is the guest's network that the login is in.
	if out, code, said := vm.ssh(t, nil, "echo $SSH_CONNECTION; readlink /proc/self/ns/net"); code != 0 || !strings.Contains(out, "127.0.0.1 22\n") || strings.HasSuffix(out, ownNetwork(t)+"\n") {
		t.Errorf("exit status %d, %q: %s", code, out, said)
	}

	// Another host key than the first one is refused, and ssh says how to forget that.
	vm.server.Stop()
	sshd.NewKey(t, filepath.Join(vm.server.Dir, "host"))
	vm.startServer(t)
	_, code, said := vm.ssh(t, nil, "true")
	if code != 255 || !strings.Contains(said, "Host key verification failed.") || !strings.Contains(said, "known_hosts") {
		t.Errorf("exit status %d: %s", code, said)
	}
}

func ownNetwork(t *testing.T) string {
	t.Helper()
	name, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestScpRsyncAndGitWorkWithWhatSSHConfigPrints(t *testing.T) {
	vm := newSSHVM(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	text := bytes.Repeat([]byte("0123456789abcde\n"), 100_000)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	same := func(name string) {
		t.Helper()
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s has %d bytes of %d: %v", name, len(got), len(text), err)
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }

	vm.must(t, "scp", "-q", "-F", vm.config, file, "rum-shop:"+in("scp-there"))
	vm.must(t, "scp", "-q", "-F", vm.config, "rum-shop:"+in("scp-there"), in("scp-back"))
	same(in("scp-back"))

	vm.must(t, "rsync", "-rt", file, "rum-shop:"+in("rsync-there"))
	vm.must(t, "rsync", "-rt", "rum-shop:"+in("rsync-there"), in("rsync-back"))
	same(in("rsync-back"))

	vm.must(t, "git", "init", "-q", "--bare", in("repo.git"))
	vm.must(t, "git", "clone", "-q", "rum-shop:"+in("repo.git"), in("clone"))
	vm.must(t, "cp", file, in("clone"))
	vm.must(t, "git", "-C", in("clone"), "add", "file")
	vm.must(t, "git", "-C", in("clone"), "commit", "-q", "-m", "one")
	vm.must(t, "git", "-C", in("clone"), "push", "-q", "origin", "HEAD")
	vm.must(t, "git", "clone", "-q", "ssh://rum-shop"+in("repo.git"), in("again"))
	same(in("again/file"))
}
