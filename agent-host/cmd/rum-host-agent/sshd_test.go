package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/projects"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/test/rumproject"
	"github.com/rum-vm/rum-agent/test/sysroot"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// sshServer is an OpenSSH server whose logins lead into a root of their own.
type sshServer struct {
	dir  string // its configuration
	port uint16
	cmd  *exec.Cmd
	log  bytes.Buffer
}

// asRoot gives sshd the directory that it wants, and an account of root's that is not locked.
const asRoot = `set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
sed 's/^root:[^:]*:/root:*:/' /etc/shadow >/run/shadow
mount --bind /run/shadow /etc/shadow
exec "$@"
`

// newSSHServer runs a server on 127.0.0.1 that lets in whoever has the private key in a file.
func newSSHServer(t *testing.T, root *sysroot.Root, identity string) *sshServer {
	t.Helper()
	s := &sshServer{dir: t.TempDir(), port: ownnet.FreePort(t)}
	public, err := exec.Command("ssh-keygen", "-y", "-f", identity).Output()
	if err != nil {
		t.Fatalf("%v: install openssh-client", err)
	}
	var enter strings.Builder
	for _, arg := range root.Args("/bin/sh", "-c") {
		fmt.Fprintf(&enter, "'%s' ", strings.ReplaceAll(arg, "'", `'\''`))
	}
	for name, text := range map[string]string{
		"authorized_keys": string(public),
		"enter":           "PATH=$PATH:/usr/sbin:/sbin\nexec " + enter.String() + `"$SSH_ORIGINAL_COMMAND"`,
		"config": fmt.Sprintf("ListenAddress 127.0.0.1:%d\nHostKey %[2]s/host\nAuthorizedKeysFile %[2]s/authorized_keys\nForceCommand /bin/sh %[2]s/enter\n"+
			"StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nPidFile none\n", s.port, s.dir),
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	newIdentity(t, filepath.Join(s.dir, "host"))
	s.start(t)
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("sshd:\n%s", s.log.Bytes())
		}
	})
	return s
}

// newIdentity makes a pair of keys.
func newIdentity(t *testing.T, file string) {
	t.Helper()
	os.Remove(file)
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: install openssh-client\n%s", err, out)
	}
}

func (s *sshServer) start(t *testing.T) {
	t.Helper()
	args := []string{"/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(s.dir, "config")}
	if _, err := os.Stat(args[0]); err != nil {
		t.Fatalf("%v: install openssh-server", err)
	}
	if os.Geteuid() == 0 {
		args = append([]string{"unshare", "-m", "/bin/sh", "-c", asRoot, "sh"}, args...)
	}
	s.cmd = exec.Command(args[0], args[1:]...)
	s.cmd.Stderr = &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			s.stop()
			t.Fatalf("sshd does not answer:\n%s", s.log.Bytes())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (s *sshServer) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	s.cmd.Wait() // its exit status says nothing
}

// runHere runs a command of the program.
func runHere(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errOut bytes.Buffer
	c := newRoot()
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&errOut)
	err = c.ExecuteContext(t.Context())
	return out.String(), errOut.String(), err
}

// hintOf is what a person is told to do.
func hintOf(err error) string {
	if p, ok := errors.AsType[*output.Problem](err); ok {
		return p.Hint
	}
	return ""
}

// smallAgent is a program that says its version, as a guest agent does; under the race detector compressing the whole one would
// take ten seconds.
func smallAgent(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	const text = "package main\nimport \"syscall\"\nfunc main() { syscall.Write(1, []byte(\"rum-guest-agent v1.2.3\\n\")) }\n"
	for name, text := range map[string]string{"main.go": text, "go.mod": "module github.com/rum-vm/rum-agent/agent-guest/cmd/rum-guest-agent\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	agent := filepath.Join(dir, "agent")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", agent, ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return agent
}

// rumVM is a VM that rum made, as far as install can see: a project and its work directory, a root directory for a guest,
// and OpenSSH on both ends. The key of the project is not there yet.
type rumVM struct {
	agent, state             string
	file, id, identity, user string
	guest                    *sysroot.Root
	server                   *sshServer
}

func newRumVM(t *testing.T, guest *sysroot.Root) *rumVM {
	t.Helper()
	vm := &rumVM{agent: smallAgent(t), state: filepath.Join(t.TempDir(), "100% state of mine"), guest: guest}
	t.Setenv("XDG_STATE_HOME", vm.state)
	t.Setenv("XDG_DATA_HOME", filepath.Join(t.TempDir(), `100% data "of mine"`))
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	vm.user = me.Username
	var workDir string
	vm.file, workDir = rumproject.New(t, projects.Dir(), "shop.rum.toml", fmt.Sprintf("[user]\nname = %q\n", vm.user))
	vm.id = config.ProjectID(vm.file)
	vm.identity = filepath.Join(workDir, "ssh_ed25519")
	return vm
}

// machine is this one, as uname -m has it.
func machine() string {
	return cmp.Or(map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH], runtime.GOARCH)
}

// boot lets the project's key in.
func (vm *rumVM) boot(t *testing.T) {
	t.Helper()
	newIdentity(t, vm.identity)
	vm.server = newSSHServer(t, vm.guest, vm.identity)
}

// in runs install or uninstall for the VM.
func (vm *rumVM) in(t *testing.T, command string) (stdout, stderr string, err error) {
	t.Helper()
	args := []string{command, "shop", "--to", "127.0.0.1"}
	if command == "install" {
		args = append(args, "--agent", vm.agent)
	}
	return runHere(t, append(args, "--", "-F", "none", "-p", fmt.Sprint(vm.server.port))...)
}

// key is what this host has for the VM.
func (vm *rumVM) key() (keyfile.Key, error) {
	store := keys.Store{Dir: filepath.Join(vm.state, "rum-agent", "keys")}
	return store.Lookup("shop", keys.ProjectIdentity(vm.id))
}
