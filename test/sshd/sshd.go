// Package sshd runs OpenSSH servers for tests, as whoever runs them.
package sshd

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// asRoot gives sshd the directory that it wants, and an account of root's that is not locked.
const asRoot = `set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
sed 's/^root:[^:]*:/root:*:/' /etc/shadow >/run/shadow
mount --bind /run/shadow /etc/shadow
exec "$@"
`

// Server is a server that lets in one user with one key.
type Server struct {
	// Dir has its configuration, and its key in the file host.
	Dir string
	// User is who it lets in.
	User string
	Log  bytes.Buffer

	cmd *exec.Cmd
}

// New makes a server that is not started, for whoever has the private key in a file. It listens
// at an address, and more says what else its configuration has.
func New(t testing.TB, addr netip.AddrPort, identity, more string) *Server {
	t.Helper()
	s := &Server{Dir: t.TempDir(), User: loginName(t)}
	public, err := exec.Command("ssh-keygen", "-y", "-f", identity).Output()
	if err != nil {
		t.Fatalf("%v: install openssh-client", err)
	}
	for name, text := range map[string]string{
		"authorized_keys": string(public),
		"config": fmt.Sprintf("ListenAddress %s\nHostKey %[2]s/host\nAuthorizedKeysFile %[2]s/authorized_keys\n"+
			"StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nPidFile none\n%s", addr, s.Dir, more),
	} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	NewKey(t, filepath.Join(s.Dir, "host"))
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("sshd:\n%s", s.Log.Bytes())
		}
	})
	return s
}

// NewKey makes a pair of keys.
func NewKey(t testing.TB, file string) {
	t.Helper()
	os.Remove(file)
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: install openssh-client\n%s", err, out)
	}
}

// Start starts it. It answers a moment later.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	args := []string{"/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(s.Dir, "config")}
	if _, err := os.Stat(args[0]); err != nil {
		t.Fatalf("%v: install openssh-server", err)
	}
	switch outside := outsideID(t, "uid"); {
	case os.Geteuid() != 0:
	case outside != 0: // what is root here only may not do what sshd does as root
		args = append([]string{"unshare", "--user", "--map-user=" + strconv.Itoa(outside), "--map-group=" + strconv.Itoa(outsideID(t, "gid"))}, args...)
	default:
		args = append([]string{"unshare", "-m", "/bin/sh", "-c", asRoot, "sh"}, args...)
	}
	s.cmd = exec.Command(args[0], args[1:]...)
	s.cmd.Stderr = &s.Log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// Stop ends it and its logins.
func (s *Server) Stop() {
	if s.cmd != nil {
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGTERM)
		_ = s.cmd.Wait() // its exit status says nothing
		s.cmd = nil
	}
}

// outsideID is what this user or group is outside of its user namespace.
func outsideID(t testing.TB, kind string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/" + kind + "_map")
	var inside, outside int
	if err == nil {
		_, err = fmt.Sscan(string(text), &inside, &outside)
	}
	if err != nil {
		t.Fatal(err)
	}
	return outside
}

func loginName(t testing.TB) string {
	t.Helper()
	id := os.Geteuid()
	if id == 0 {
		id = outsideID(t, "uid")
	}
	u, err := user.LookupId(strconv.Itoa(id))
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}
