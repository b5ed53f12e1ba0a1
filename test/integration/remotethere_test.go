package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// agentThere has logins find a rum-host-agent that writes its arguments, or what a file says, and exits with a status.
func (r *remoteHost) agentThere(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rum-host-agent"), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	relay, err := os.ReadFile(r.login)
	if err != nil {
		t.Fatal(err)
	}
	begin, _, _ := strings.Cut(string(relay), "esac\n")
	r.lead(t, begin+"esac\nPATH="+dir+":$PATH exec /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"\n")
}

// said is what a command of the host agent said, and its exit status.
func said(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	c := exec.Command(filepath.Join(bin, "rum-host-agent"), args...)
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), errs.String(), exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), 0
}

func TestCommandsAboutAVMOfAnotherHostRunThere(t *testing.T) {
	r := newRemoteHost(t)
	r.agentThere(t, "for a; do printf '<%s>' \"$a\"; done; echo; echo said there >&2; exit 7\n")
	socket := filepath.Join(t.TempDir(), "none.sock")
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"setup", "server/dev", "--dry-run"}, "<setup><--dry-run=true><dev>\n"},
		{[]string{"setup", "--keep", "no", "server/it's $(id) \"* ~"}, "<setup><--keep=no><it's $(id) \"* ~>\n"},
		{[]string{"install", "server/dev", "--to", "me@dev; id", "--arch", "arm64,amd64", "--", "-p", "22"}, "<install><--arch=arm64><--arch=amd64><--to=me@dev; id><dev><--><-p><22>\n"},
	} {
		stdout, stderr, status := said(t, append([]string{"--socket", socket}, row.args...)...)
		if stdout != row.want || !strings.Contains(stderr, "said there\n") || status != 7 {
			t.Errorf("%q: exit status %d\n%s%s\nwant 7 and\n%s", row.args, status, stdout, stderr, row.want)
		}
	}
	for name, row := range map[string]struct {
		args []string
		want string
	}{
		"a flag as a host": {[]string{"setup", "--", "-oProxyCommand=id/dev"}, "is no host"},
		"a flag as a VM":   {[]string{"setup", "server/--undo"}, "begins with a dash"},
		"a path":           {[]string{"install", "server/a/b"}, "has a /"},
		"no VM":            {[]string{"setup", "server/"}, "the name is empty"},
		"a file of this host": {[]string{"setup", "server/dev", "--seed", "dev.iso"},
			"--seed names a file of this host, and server/dev is on server\ncopy it there and run there, with its name: ssh server rum-host-agent setup --seed FILE dev\n"},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, status := said(t, append([]string{"--socket", socket}, row.args...)...)
			if stdout != "" || status != 2 || !strings.Contains(stderr, row.want) {
				t.Errorf("exit status %d\n%s%s", status, stdout, stderr)
			}
		})
	}

	r.agentThere(t, "echo installed\n")
	stdout, stderr, status := said(t, "--socket", socket, "install", "server/dev")
	if want := "have it here too with:\nssh server rum-host-agent keys export dev | rum-host-agent keys import server/dev\n"; stdout != "installed\n" || status != 0 || !strings.Contains(stderr, want) {
		t.Errorf("exit status %d\n%s%s", status, stdout, stderr)
	}

	r.lead(t, "exit 127\n")
	_, stderr, status = said(t, "--socket", socket, "setup", "server/dev")
	if status != 1 || !strings.Contains(stderr, "there is no rum-host-agent on server\ninstall it with: scp") {
		t.Errorf("exit status %d\n%s", status, stderr)
	}
}

func TestDoctorAndExplainTellOfAVMOfAnotherHost(t *testing.T) {
	r := newRemoteHost(t)
	g := newGuest(t, "dev")
	greet(g.listen(t, "0.0.0.0:8080"), "hello")
	r.add(t, g)
	r.agentThere(t, `[ "$*" = "doctor --json dev" ] || exit 9
printf '%s' '{"well":false,"checks":[{"name":"vsock","ok":true,"text":"it is there"},{"name":"agent","ok":false,"text":"none runs"},
{"name":"dev","ok":false,"text":"it is \u001b[2Joff","remedy":"start it with: virsh start dev","command":"virsh start dev"}]}'
exit 1
`)
	h := r.serve(t)
	h.awaitForward(t, "server/dev", 8080, "active", active)
	stdout, stderr, status := said(t, "--socket", h.socket, "doctor", "server/dev")
	if status != 1 {
		t.Errorf("exit status %d", status)
	}
	for _, want := range []string{"server/vsock", "it is there", "server/dev", "it is ?[2Joff", "on server: start it with: virsh start dev"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("doctor does not say %q", want)
		}
	}
	if strings.Contains(stdout, "none runs") {
		t.Error("doctor wants an agent besides the relay there")
	}
	if t.Failed() {
		t.Logf("%s%s", stdout, stderr)
	}
	stdout, stderr, status = said(t, "--socket", h.socket, "explain", "server/dev", "8080")
	if status != 0 || !strings.Contains(stdout, "ssh:server/") {
		t.Errorf("explain: exit status %d\n%s%s", status, stdout, stderr)
	}

	r.lead(t, "echo 'no more of it' >&2; exit 3\n")
	for _, pid := range r.relays(t) {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill()
		}
	}
	h.awaitError(t, "no more of it")
	stdout, _, status = said(t, "--socket", h.socket, "doctor", "server/dev")
	if status != 1 || !strings.Contains(stdout, "server cannot be asked: no more of it") {
		t.Errorf("doctor: exit status %d\n%s", status, stdout)
	}
	_, stderr, status = said(t, "--socket", h.socket, "explain", "server/other", "80")
	if want := fmt.Sprintf("nothing is known of a VM %q: ssh://server cannot be asked", "server/other"); status != 1 || !strings.Contains(stderr, want) {
		t.Errorf("explain: exit status %d\n%s", status, stderr)
	}
}
