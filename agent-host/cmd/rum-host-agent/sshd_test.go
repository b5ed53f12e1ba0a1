package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/projects"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/test/rumproject"
	"github.com/rum-vm/rum-agent/test/sshd"
	"github.com/rum-vm/rum-agent/test/sysroot"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// sshServer is an OpenSSH server whose logins lead into a root of their own.
type sshServer struct {
	*sshd.Server
	port  uint16
	enter string // the script that a login runs
}

// newSSHServer runs a server on 127.0.0.1 that lets in whoever has the private key in a file.
func newSSHServer(t *testing.T, root *sysroot.Root, identity string) *sshServer {
	t.Helper()
	enter := filepath.Join(t.TempDir(), "enter")
	s := &sshServer{port: ownnet.FreePort(t)}
	s.Server = sshd.New(t, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), s.port), identity, "ForceCommand /bin/sh "+enter+"\n")
	s.enter = enter
	var into strings.Builder
	for _, arg := range root.Args("/bin/sh", "-c") {
		fmt.Fprintf(&into, "'%s' ", strings.ReplaceAll(arg, "'", `'\''`))
	}
	s.lead(t, "PATH=$PATH:/usr/sbin:/sbin\nexec "+into.String()+`"$SSH_ORIGINAL_COMMAND"`)
	s.start(t)
	return s
}

// lead says what a login does.
func (s *sshServer) lead(t *testing.T, script string) {
	t.Helper()
	if err := os.WriteFile(s.enter, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start starts it, and waits until it answers.
func (s *sshServer) start(t *testing.T) {
	t.Helper()
	s.Start(t)
	deadline := time.Now().Add(20 * time.Second)
	for {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			s.Stop()
			t.Fatalf("sshd does not answer:\n%s", s.Log.Bytes())
		}
		time.Sleep(10 * time.Millisecond)
	}
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
	sshd.NewKey(t, vm.identity)
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
