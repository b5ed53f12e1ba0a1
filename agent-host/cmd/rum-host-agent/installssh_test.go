package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/cloudinit"
	"github.com/rum-vm/rum-agent/test/sshd"
	"github.com/rum-vm/rum-agent/test/sysroot"
)

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
	enter := server.enter
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
	server.Stop()
	sshd.NewKey(t, filepath.Join(server.Dir, "host"))
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
	sshd.NewKey(t, vm.identity)
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
	vm.server.Stop()
	_, _, err := vm.in(t, "install")
	command, _, found := strings.Cut(strings.TrimPrefix(hintOf(err), "try it by hand with: "), ", and name")
	if err == nil || !found {
		t.Fatalf("%v; %s", err, hintOf(err))
	}
	vm.server.start(t)
	if err := os.WriteFile(vm.server.enter, []byte("$SSH_ORIGINAL_COMMAND"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
}

// A project's file may be a stranger's.
func TestAUserThatNoSystemHasIsNotUsed(t *testing.T) {
	vm := newRumVM(t, sysroot.New(t, machine()))
	sshd.NewKey(t, vm.identity)
	for _, user := range []string{"$(touch /nowhere/pwned)", "-oProxyCommand=id", "a b", "\x1b]0;owned", "a\rb", "`id`", "a;b", "a'b"} {
		if err := os.WriteFile(vm.file, fmt.Appendf(nil, "[ssh]\nuser = %s\n", strings.ReplaceAll(strconv.QuoteToASCII(user), `\x`, `\u00`)), 0o600); err != nil {
			t.Fatal(err)
		}
		_, said, err := runHere(t, "install", "shop", "--to", "127.0.0.1", "--agent", vm.agent)
		var shown bytes.Buffer
		report(&shown, "rum-host-agent install", err)
		if err == nil || !strings.Contains(err.Error(), "user") || !strings.Contains(hintOf(err), "--to USER@HOST") || strings.Contains(shown.String()+said, user) {
			t.Errorf("%q: %v; %s\n%s", user, err, hintOf(err), said)
		}
	}
}

func TestInstallSaysThatAProjectsFileIsNotUsedAndWhatIsInstead(t *testing.T) {
	vm := newRumVM(t, sysroot.New(t, machine()))
	sshd.NewKey(t, vm.identity)
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
