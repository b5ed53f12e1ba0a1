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

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/projects"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/test/sysroot"
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
	if p, ok := errors.AsType[*problem](err); ok {
		return p.hint
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

// TestInstallGoesIntoAVMOfRumsWithItsKeyOverSSH has OpenSSH on both ends, and a root directory for a guest.
func TestInstallGoesIntoAVMOfRumsWithItsKeyOverSSH(t *testing.T) {
	agent := smallAgent(t)
	state := filepath.Join(t.TempDir(), "state of mine")
	t.Setenv("XDG_STATE_HOME", state)
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "shop.rum.toml")
	id := config.ProjectID(file)
	workDir := filepath.Join(projects.Dir(), id+"-shop")
	if err := os.MkdirAll(workDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{file: fmt.Sprintf("[user]\nname = %q\n", me.Username), filepath.Join(workDir, "config_path"): file} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	identity := filepath.Join(workDir, "ssh_ed25519")
	_, _, err = runHere(t, "install", "shop", "--to", "127.0.0.1", "--agent", agent)
	if err == nil || !strings.Contains(err.Error(), identity) || !strings.Contains(hintOf(err), "rum up") {
		t.Errorf("without the project's key: %v; %s", err, hintOf(err))
	}
	newIdentity(t, identity)

	guest := sysroot.Systemd(t, cmp.Or(map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH], runtime.GOARCH))
	server := newSSHServer(t, guest, identity)
	there := []string{"--to", "127.0.0.1"}
	withSSH := []string{"--", "-F", "none", "-p", fmt.Sprint(server.port)}
	in := func(command string, more ...string) (stdout, stderr string, err error) {
		t.Helper()
		args := append(append([]string{command, "shop"}, there...), more...)
		return runHere(t, append(args, withSSH...)...)
	}

	// A login that leads to something else ends well, and nothing is installed.
	enter := filepath.Join(server.dir, "enter")
	command, err := os.ReadFile(enter)
	if err != nil {
		t.Fatal(err)
	}
	store := keys.Store{Dir: filepath.Join(state, "rum-agent", "keys")}
	for instead, want := range map[string]string{
		"true": "printed nothing",
		"echo Welcome; echo This account is not available.; cat >/dev/null": `its last line is "This account is not available."`,
		`echo "$SSH_ORIGINAL_COMMAND"`:                                      "its last line is ",
		"head -c 10000000 /dev/zero":                                        "its last line is ",
	} {
		if err := os.WriteFile(enter, []byte(instead), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, does := range []string{"install --agent " + agent, "uninstall"} {
			does := strings.Fields(does)
			_, _, err := in(does[0], does[1:]...)
			if err == nil || !strings.Contains(err.Error(), "has not run the script") || !strings.Contains(err.Error(), want) || !strings.Contains(hintOf(err), "command=") {
				t.Errorf("%s led to %q: %v; %s", does[0], instead, err, hintOf(err))
			}
		}
	}
	if _, err := store.Lookup("shop", ""); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("a key is kept that no guest has: %v", err)
	}
	if err := os.WriteFile(enter, command, 0o600); err != nil {
		t.Fatal(err)
	}

	out, said, err := in("install", "--agent", agent)
	if err != nil || out != "rum-guest-agent v1.2.3\ninstalled, and started\n" {
		t.Fatalf("error %v, output %s\n%s", err, out, said)
	}
	for _, want := range []string{"shop is the VM of " + file + "; going in as " + me.Username + "@127.0.0.1\n", "\nsending "} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
	if strings.Contains(said, "\rsending") {
		t.Errorf("a line changes, where there is no terminal: %q", said)
	}
	key, err := store.Lookup("shop", hostagent.ProjectIdentity(id))
	if err != nil || guest.Read("etc/rum-agent/key") != string(key.Encode()) {
		t.Errorf("the guest has another key than this host: %v", err)
	}

	guest.Write("calls", "", 0o666)
	out, said, err = in("install", "--agent", agent)
	if err != nil || out != "rum-guest-agent v1.2.3\nnothing to do: it is here already, with this key, and runs\n" {
		t.Errorf("the second time: error %v, output %s\n%s", err, out, said)
	}
	if calls := guest.Read("calls"); strings.Contains(calls, "start") || strings.Contains(calls, "reload") {
		t.Errorf("the second time it did:\n%s", calls)
	}

	// Another machine at that address, or the VM made anew.
	server.stop()
	newIdentity(t, filepath.Join(server.dir, "host"))
	server.start(t)
	before := guest.Read("calls")
	_, _, err = in("uninstall")
	forget := "ssh-keygen -f \"" + filepath.Join(state, "rum-agent", "known_hosts") + "\" -R rum-" + id
	if err == nil || !strings.Contains(err.Error(), "does not have the host key that it had") || !strings.Contains(hintOf(err), forget) {
		t.Fatalf("error %v; %s", err, hintOf(err))
	}
	if guest.Read("calls") != before {
		t.Error("it went in all the same")
	}
	if out, err := exec.Command("sh", "-c", forget).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", forget, err, out)
	}

	out, said, err = in("uninstall")
	if err != nil || !strings.HasPrefix(out, "rum-guest-agent is removed, with its key and its service\n") || !strings.Contains(out, "rum-host-agent keys forget shop") {
		t.Errorf("error %v, output %s\n%s", err, out, said)
	}
	if guest.Read("local/bin/rum-guest-agent")+guest.Read("etc/rum-agent/key") != "" {
		t.Error("the agent or its key is still there")
	}
	if again, err := store.Lookup("shop", hostagent.ProjectIdentity(id)); err != nil || again != key {
		t.Errorf("this host has forgotten the key: %v", err)
	}
	if out, _, err = in("uninstall"); err != nil || !strings.HasPrefix(out, "nothing to do: rum-guest-agent is not here\n") {
		t.Errorf("the second time: error %v, output %s", err, out)
	}

	// Without the project's key nobody gets in.
	newIdentity(t, identity)
	if _, _, err = in("uninstall"); err == nil || !strings.Contains(err.Error(), "cannot reach "+me.Username+"@127.0.0.1 with ssh") {
		t.Errorf("with another key: %v", err)
	}
}
