package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

var sshTools = []string{"ssh", "ssh-keygen", "sshd"}

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
	if err := furnishSSHD(); err != nil {
		return nil, err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	server := s.to.command(sshd, "-i", "-e", "-f", "/dev/null",
		"-o", "HostKey="+in("host"),
		"-o", "AuthorizedKeysFile="+in("client.pub"),
		"-o", "AuthenticationMethods=publickey",
		"-o", "StrictModes=no",
		"-o", "UsePAM=no",
		"-o", "UseDNS=no",
		"-o", "PermitRootLogin=prohibit-password",
		"-o", "LogLevel=ERROR")
	client := []string{"ssh", "-N", "-F", "none",
		"-o", "ProxyCommand=" + strings.Join(server, " "),
		"-o", "BatchMode=yes",
		"-o", "HostKeyAlias=bench",
		"-o", "StrictHostKeyChecking=yes",
		"-o", "UserKnownHostsFile=" + in("known_hosts"),
		"-o", "GlobalKnownHostsFile=none",
		"-o", "IdentityFile=" + in("client"),
		"-o", "IdentitiesOnly=yes",
		"-o", "IdentityAgent=none",
		"-o", "ControlPath=none",
		"-o", "ExitOnForwardFailure=yes",
		"-o", "LogLevel=ERROR",
	}
	if cipher != "" {
		client = append(client, "-c", cipher)
	}
	for _, port := range s.ports.all() {
		client = append(client, "-L", fmt.Sprintf("127.0.0.1:%d:127.0.0.1:%d", port, port))
	}
	p, err := startProcess(append(client, "root@bench")...)
	if err != nil {
		return nil, err
	}
	return []*process{p}, nil
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

// furnishSSHD gives sshd the directory it insists on, and a view of the accounts in which root is not locked: a
// machine's own root often is, and sshd then refuses its key.
func furnishSSHD() error {
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		return err
	}
	accounts := scratchPath("shadow")
	if _, err := os.Stat(accounts); err == nil {
		return nil
	}
	if err := os.WriteFile(accounts, []byte("root:*:19000:0:99999:7:::\nsshd:!:19000::::::\n"), 0o600); err != nil {
		return err
	}
	if err := unix.Mount(accounts, "/etc/shadow", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("show sshd its accounts: %w", err)
	}
	return nil
}
