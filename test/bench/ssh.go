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
// configuration: keys, known hosts and accounts are made for the run. The two talk over a pair of pipes, as ssh does
// with any ProxyCommand; no third process copies.
func startSSH(s setting, cipher string) ([]*process, error) {
	sshd, err := findTool("sshd")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(scratch, "ssh-")
	if err != nil {
		return nil, err
	}
	if err := makeKeys(dir); err != nil {
		return nil, err
	}
	if err := unlockAccount(); err != nil {
		return nil, err
	}
	return startSSHClient(dir, s.to.command(sshServer(sshd, dir)...), cipher, s.ports)
}

// sshServer is an sshd for one connection on its standard input and output, with the host's key and the client's public
// one in dir.
func sshServer(sshd, dir string) []string {
	return []string{"unshare", "--user", "--map-user=" + sshUser, "--map-group=" + sshUser, sshd, "-i", "-e", "-f", "/dev/null",
		"-o", "HostKey=" + filepath.Join(dir, "host"),
		"-o", "AuthorizedKeysFile=" + filepath.Join(dir, "client.pub"),
		"-o", "AuthenticationMethods=publickey",
		"-o", "StrictModes=no",
		"-o", "UsePAM=no",
		"-o", "UseDNS=no",
		"-o", "LogLevel=ERROR"}
}

// startSSHClient forwards ports over what the command proxy connects it to.
func startSSHClient(dir string, proxy []string, cipher string, p ports) ([]*process, error) {
	client := []string{"ssh", "-N", "-F", "none",
		"-o", "ProxyCommand=" + strings.Join(proxy, " "),
		"-o", "BatchMode=yes",
		"-o", "HostKeyAlias=bench",
		"-o", "StrictHostKeyChecking=yes",
		"-o", "UserKnownHostsFile=" + filepath.Join(dir, "known_hosts"),
		"-o", "GlobalKnownHostsFile=none",
		"-o", "IdentityFile=" + filepath.Join(dir, "client"),
		"-o", "IdentitiesOnly=yes",
		"-o", "IdentityAgent=none",
		"-o", "ControlPath=none",
		"-o", "ExitOnForwardFailure=yes",
		"-o", "LogLevel=ERROR",
	}
	if cipher != "" {
		client = append(client, "-c", cipher)
	}
	for _, port := range p.all() {
		client = append(client, "-L", fmt.Sprintf("127.0.0.1:%d:127.0.0.1:%d", port, port))
	}
	ssh, err := startProcess(append(client, "nobody@bench")...)
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
