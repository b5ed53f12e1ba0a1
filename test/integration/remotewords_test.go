package integration

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/sshd"
)

// awaitError waits until the status says of the host what is wanted.
func (h *hostAgent) awaitError(t *testing.T, want string) {
	t.Helper()
	last := ""
	defer func() {
		if t.Failed() {
			t.Logf("the last error is %q", last)
		}
	}()
	eventually(t, "the error "+want, func() bool {
		st, err := control.NewClient(h.socket).Status(t.Context())
		if err != nil || len(st.Discovery) != 1 || st.Discovery[0].Source != "ssh://server" {
			return false
		}
		last = st.Discovery[0].Error
		if d := st.Discovery[0]; last != "" && (d.Host != "server" || d.State != status.Down) {
			t.Errorf("the host is %q, %q", d.Host, d.State)
		}
		return strings.Contains(last, want)
	})
}

// discovered is what the status says of the only host.
func (h *hostAgent) discovered(t *testing.T) status.Discovery {
	t.Helper()
	st, err := control.NewClient(h.socket).Status(t.Context())
	if err != nil || len(st.Discovery) != 1 {
		t.Fatalf("%d sources of VMs, %v", len(st.Discovery), err)
	}
	return st.Discovery[0]
}

func TestWhyAHostCannotBeAskedIsSaidInWords(t *testing.T) {
	r := newRemoteHost(t)
	script, err := os.ReadFile(r.login)
	if err != nil {
		t.Fatal(err)
	}
	r.lead(t, "sh -c 'no-such-rum-agent relay'\n")
	h := r.serve(t)
	h.awaitError(t, "there is no rum-host-agent on server; install it with: scp $(command -v rum-host-agent) server: && ssh -t server sudo install")
	r.lead(t, "echo 'rum-host-agent: unknown command \"relay\"' >&2; exit 2\n")
	h.awaitError(t, "rum-host-agent on server is older than this one")
	r.lead(t, "echo rum-relay 7 v9.9.9; cat >/dev/null\n")
	h.awaitError(t, "its agent is version v9.9.9, which speaks version 7 of the protocol with relays, and this one speaks 1; upgrade rum-host-agent here")
	r.lead(t, "echo This account is a joke.\n")
	h.awaitError(t, `no relay answers, but something that says "This account is a joke."`)

	// A login may print something before.
	r.lead(t, "echo Welcome to server\n"+string(script))
	g := newGuest(t, "dev")
	r.add(t, g)
	h.awaitLinks(t, 1)

	// The keys change. A login that is there would outlive the server that is stopped.
	r.lead(t, "echo The host is about to be set up anew. >&2; exit 1\n")
	for _, ssh := range children(t, h.cmd.Process.Pid, "ssh") {
		if err := syscall.Kill(ssh, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	h.awaitError(t, "the relay on server ended with exit status 1: The host is about to be set up anew.")
	r.sshd.Stop()
	h.awaitError(t, "Connection refused")
	sshd.NewKey(t, filepath.Join(r.sshd.Dir, "host"))
	r.sshd.Start(t)
	h.awaitError(t, "the host key of server has changed; if server was set up anew, forget the old key with: ssh-keygen -R server")
	r.sshd.Stop()
	if err := os.Remove(filepath.Join(r.sshd.Dir, "authorized_keys")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.knownHosts); err != nil {
		t.Fatal(err)
	}
	r.sshd.Start(t)
	h.awaitError(t, "the host key of server is not known here; accept it once with: ssh server true")
	hostKey, err := os.ReadFile(filepath.Join(r.sshd.Dir, "host.pub"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.knownHosts, append([]byte("[127.0.0.1]:2222 "), hostKey...), 0o600); err != nil {
		t.Fatal(err)
	}
	h.awaitError(t, "Permission denied")
}
