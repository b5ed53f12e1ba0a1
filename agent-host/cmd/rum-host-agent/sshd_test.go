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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/projects"
	"github.com/rum-vm/rum-agent/cloudinit"
	"github.com/rum-vm/rum-agent/test/ownnet"
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
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	vm.user = me.Username
	vm.file = filepath.Join(dir, "shop.rum.toml")
	vm.id = config.ProjectID(vm.file)
	workDir := filepath.Join(projects.Dir(), vm.id+"-shop")
	if err := os.MkdirAll(workDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{vm.file: fmt.Sprintf("[user]\nname = %q\n", vm.user), filepath.Join(workDir, "config_path"): vm.file} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
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

func TestInstallGoesIntoAVMOfRumsWithItsKeyOverSSH(t *testing.T) {
	vm := newRumVM(t, sysroot.Systemd(t, machine()))
	_, _, err := runHere(t, "install", "shop", "--to", "127.0.0.1", "--agent", vm.agent)
	if err == nil || !strings.Contains(err.Error(), vm.identity) || !strings.Contains(hintOf(err), "rum up") {
		t.Errorf("without the project's key: %v; %s", err, hintOf(err))
	}
	vm.boot(t)
	guest, server := vm.guest, vm.server
	in := func(command string) (stdout, stderr string, err error) { return vm.in(t, command) }

	// A login that leads to something else ends well, and nothing is installed.
	enter := filepath.Join(server.dir, "enter")
	command, err := os.ReadFile(enter)
	if err != nil {
		t.Fatal(err)
	}
	for instead, want := range map[string]string{
		"true": "printed nothing",
		"echo Welcome; echo This account is not available.; cat >/dev/null": `its last line is "This account is not available."`,
		`echo "$SSH_ORIGINAL_COMMAND"`:                                      "its last line is ",
		"head -c 10000000 /dev/zero":                                        "its last line is ",
	} {
		if err := os.WriteFile(enter, []byte(instead), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, does := range []string{"install", "uninstall"} {
			_, _, err := in(does)
			if err == nil || !strings.Contains(err.Error(), "has not run the script") || !strings.Contains(err.Error(), want) || !strings.Contains(hintOf(err), "command=") {
				t.Errorf("%s led to %q: %v; %s", does, instead, err, hintOf(err))
			}
		}
	}
	if _, err := vm.key(); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("a key is kept that no guest has: %v", err)
	}
	if err := os.WriteFile(enter, command, 0o600); err != nil {
		t.Fatal(err)
	}

	out, said, err := in("install")
	if err != nil || out != cloudinit.KeyInPlace+"rum-guest-agent v1.2.3\ninstalled, and started\n" {
		t.Fatalf("error %v, output %s\n%s", err, out, said)
	}
	for _, want := range []string{"shop is the VM of " + vm.file + "; going in as " + vm.user + "@127.0.0.1\n", "\nsending "} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
	if strings.Contains(said, "\rsending") {
		t.Errorf("a line changes, where there is no terminal: %q", said)
	}
	key, err := vm.key()
	if err != nil || guest.Read("etc/rum-agent/key") != string(key.Encode()) {
		t.Errorf("the guest has another key than this host: %v", err)
	}

	guest.Write("calls", "", 0o666)
	out, said, err = in("install")
	if err != nil || out != cloudinit.KeyInPlace+"rum-guest-agent v1.2.3\nnothing to do: it is here already, with this key, and runs\n" {
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
	forget := "ssh-keygen -f '" + filepath.Join(vm.state, "rum-agent", "known_hosts") + "' -R rum-" + vm.id
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
	if again, err := vm.key(); err != nil || again != key {
		t.Errorf("this host has forgotten the key: %v", err)
	}
	if out, _, err = in("uninstall"); err != nil || !strings.HasPrefix(out, "nothing to do: rum-guest-agent is not here\n") {
		t.Errorf("the second time: error %v, output %s", err, out)
	}

	// Without the project's key nobody gets in.
	newIdentity(t, vm.identity)
	if _, _, err = in("uninstall"); err == nil || !strings.Contains(err.Error(), "cannot reach "+vm.user+"@127.0.0.1 with ssh") {
		t.Errorf("with another key: %v", err)
	}
}

func TestTwoInstallsAtOnceGiveAVMOneKey(t *testing.T) {
	vm := newRumVM(t, sysroot.Systemd(t, machine()))
	vm.boot(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if out, said, err := vm.in(t, "install"); err != nil {
				t.Errorf("error %v, output %s\n%s", err, out, said)
			}
		})
	}
	wg.Wait()
	key, err := vm.key()
	if err != nil || vm.guest.Read("etc/rum-agent/key") != string(key.Encode()) {
		t.Errorf("the guest has another key than this host: %v", err)
	}
}

// An installation that fails when the guest has the key already leaves both with the same.
func TestAKeyThatAGuestGotFromAFailedInstallIsKept(t *testing.T) {
	for name, guest := range map[string]*sysroot.Root{"no service manager": sysroot.New(t, machine()), "service does not start": sysroot.Systemd(t, machine())} {
		if name != "no service manager" {
			guest.Write("local/sbin/systemctl", "#!/bin/sh\necho no start >&2\nexit 1\n", 0o755)
		}
		t.Run(name, func(t *testing.T) {
			vm := newRumVM(t, guest)
			vm.boot(t)
			var was string
			for range 2 {
				if out, said, err := vm.in(t, "install"); err == nil || strings.Contains(hintOf(err), "sudo") {
					t.Fatalf("error %v; %s; output %s\n%s", err, hintOf(err), out, said)
				}
				key, err := vm.key()
				there := guest.Read("etc/rum-agent/key")
				if err != nil || there != string(key.Encode()) || was != "" && was != there {
					t.Errorf("the guest has another key than this host, or than before: %v", err)
				}
				was = there
			}
		})
	}
}

// What a command says is to be done by hand is what it did itself, and a shell takes each word as it is.
func TestTheCommandToTryByHandIsTheOneThatWasUsed(t *testing.T) {
	vm := newRumVM(t, sysroot.Systemd(t, machine()))
	vm.boot(t)
	vm.server.stop()
	_, _, err := vm.in(t, "install")
	command, _, found := strings.Cut(strings.TrimPrefix(hintOf(err), "try it by hand with: "), ", and name")
	if err == nil || !found {
		t.Fatalf("%v; %s", err, hintOf(err))
	}
	vm.server.start(t)
	if err := os.WriteFile(filepath.Join(vm.server.dir, "enter"), []byte("$SSH_ORIGINAL_COMMAND"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
}

// A project's file may be a stranger's.
func TestAUserThatNoSystemHasIsNotUsed(t *testing.T) {
	vm := newRumVM(t, sysroot.New(t, machine()))
	newIdentity(t, vm.identity)
	for _, user := range []string{"$(touch /nowhere/pwned)", "-oProxyCommand=id", "a b", "\x1b]0;owned", "a\rb", "`id`", "a;b", "a'b"} {
		if err := os.WriteFile(vm.file, fmt.Appendf(nil, "[ssh]\nuser = %s\n", strings.ReplaceAll(strconv.QuoteToASCII(user), `\x`, `\u00`)), 0o600); err != nil {
			t.Fatal(err)
		}
		_, said, err := runHere(t, "install", "shop", "--to", "127.0.0.1", "--agent", vm.agent)
		var shown bytes.Buffer
		report(&shown, err)
		if err == nil || !strings.Contains(err.Error(), "user") || !strings.Contains(hintOf(err), "--to USER@HOST") || strings.Contains(shown.String()+said, user) {
			t.Errorf("%q: %v; %s\n%s", user, err, hintOf(err), said)
		}
	}
}

func TestInstallSaysThatAProjectsFileIsNotUsedAndWhatIsInstead(t *testing.T) {
	vm := newRumVM(t, sysroot.New(t, machine()))
	newIdentity(t, vm.identity)
	good, err := os.ReadFile(vm.file)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ text, user, want string }{
		{"[user\n", "rum", vm.file + ":1:6: "},
		{"[user\n", "rum", "what rum does without a word in it is taken"},
		{string(good), vm.user, ""},
		{"[user]\nnmae = \"me\"\n", vm.user, "unknown key; did you mean name?; the last good version is taken"},
	} {
		if err := os.WriteFile(vm.file, []byte(row.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, said, err := runHere(t, "install", "shop", "--to", "127.0.0.1", "--agent", vm.agent)
		if err == nil || !strings.Contains(said, row.want) || !strings.Contains(said, "going in as "+row.user+"@127.0.0.1") || row.want == "" && strings.Contains(said, " taken") {
			t.Errorf("%q: it does not say %q: %v\n%s", row.text, row.want, err, said)
		}
	}
}
