package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

var sshTools = []string{"ssh", "ssh-keygen", "sshd", "unshare"}

// sshUser is the id of the account nobody, which every Linux has. In a user namespace where that is all there is, sshd
// serves it without being root, with no privileges to separate and no accounts to switch.
const sshUser = "65534"

// sshMaxIdle bounds the time: ssh looks at every connection whenever one has something to say.
const sshMaxIdle = 1000

// startSSH forwards each port with ssh -L to an sshd that shares nothing with the user's or the machine's
// configuration: keys, known hosts and accounts are made for the run.
func startSSH(s setting, cipher string) ([]*process, error) {
	dir, proxy, err := prepareSSH(s)
	if err != nil {
		return nil, err
	}
	return startSSHClient(dir, proxy, cipher, s.ports)
}

// prepareSSH makes keys, and the command that an ssh here connects to an sshd where the guest is. The two talk over a pair of pipes, as
// ssh does with any ProxyCommand; no third process copies, but where the setting has a delay.
func prepareSSH(s setting, options ...string) (dir string, proxy []string, err error) {
	sshd, err := findTool("sshd")
	if err != nil {
		return "", nil, err
	}
	if dir, err = os.MkdirTemp(scratch, "ssh-"); err != nil {
		return "", nil, err
	}
	if err := makeKeys(dir); err != nil {
		return "", nil, err
	}
	if err := unlockAccount(); err != nil {
		return "", nil, err
	}
	proxy = s.to.command(sshServer(sshd, dir, options...)...)
	if s.delay > 0 {
		self, err := os.Executable()
		if err != nil {
			return "", nil, err
		}
		proxy = append([]string{self, roleDelay, (s.delay / 2).String(), "--"}, proxy...)
	}
	return dir, proxy, nil
}

// sshServer is an sshd for one connection on its standard input and output, with the host's key and the client's public
// one in dir.
func sshServer(sshd, dir string, options ...string) []string {
	argv := []string{"unshare", "--user", "--map-user=" + sshUser, "--map-group=" + sshUser, sshd, "-i", "-e", "-f", "/dev/null"}
	return append(argv, asOptions(append([]string{
		"HostKey=" + filepath.Join(dir, "host"),
		"AuthorizedKeysFile=" + filepath.Join(dir, "client.pub"),
		"AuthenticationMethods=publickey",
		"StrictModes=no",
		"UsePAM=no",
		"UseDNS=no",
		"LogLevel=ERROR",
	}, options...))...)
}

// sshClient is how an ssh comes over what the command proxy connects it to, as lines of its configuration.
func sshClient(dir string, proxy []string) []string {
	return []string{
		"ProxyCommand=" + strings.Join(quoted(proxy), " "),
		"User=nobody",
		"BatchMode=yes",
		"HostKeyAlias=bench",
		"StrictHostKeyChecking=yes",
		"UserKnownHostsFile=" + filepath.Join(dir, "known_hosts"),
		"GlobalKnownHostsFile=none",
		"IdentityFile=" + filepath.Join(dir, "client"),
		"IdentitiesOnly=yes",
		"IdentityAgent=none",
		"LogLevel=ERROR",
	}
}

// asOptions makes arguments of lines of configuration.
func asOptions(lines []string) (argv []string) {
	for _, line := range lines {
		argv = append(argv, "-o", line)
	}
	return argv
}

// quoted has the shell that ssh runs take words as they are.
func quoted(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return out
}

// startSSHClient forwards ports over what the command proxy connects it to.
func startSSHClient(dir string, proxy []string, cipher string, p ports) ([]*process, error) {
	client := append([]string{"ssh", "-N", "-F", "none"}, asOptions(append(sshClient(dir, proxy), "ControlPath=none", "ExitOnForwardFailure=yes"))...)
	if cipher != "" {
		client = append(client, "-c", cipher)
	}
	for _, port := range p.all() {
		client = append(client, "-L", fmt.Sprintf("127.0.0.1:%d:127.0.0.1:%d", port, port))
	}
	ssh, err := startProcess(append(client, "bench")...)
	if err != nil {
		return nil, err
	}
	return []*process{ssh}, nil
}

// makeKeys writes throw-away keys for the server and the client, and makes them known to each other.
func makeKeys(dir string) error {
	for _, name := range []string{"host", "client"} {
		path := filepath.Join(dir, name)
		if out, err := output(context.Background(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", path); err != nil {
			return fmt.Errorf("make a key: %w\n%s", err, out)
		}
	}
	key, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "known_hosts"), append([]byte("bench "), key...), 0o600)
}

// unlockAccount shows the sandbox a list of passwords in which nobody's is merely impossible. Elsewhere it may count as
// locked, and sshd then refuses keys too.
func unlockAccount() error {
	shadow := scratchPath("shadow")
	if _, err := os.Stat(shadow); err == nil {
		return nil
	}
	if err := os.WriteFile(shadow, []byte("nobody:*:19000:0:99999:7:::\n"), 0o600); err != nil {
		return err
	}
	if err := unix.Mount(shadow, "/etc/shadow", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("unlock the account nobody in the sandbox: %w", err)
	}
	return nil
}
