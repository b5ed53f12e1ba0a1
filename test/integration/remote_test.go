package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/remote/server"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/sshd"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// asRelay makes the test binary a relay, with the domains that a file has in the place of libvirt's.
const asRelay = "RUM_TEST_RELAY"

func runRelay(domains string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	relay := &server.Server{Version: "v1.0.0", Log: log, Watch: func(ctx context.Context, seen func(libvirt.Snapshot)) error {
		var last *libvirt.Snapshot
		for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
			var now libvirt.Snapshot
			text, err := os.ReadFile(domains)
			if err == nil {
				err = json.Unmarshal(text, &now.Domains)
			}
			if err == nil && (last == nil || !reflect.DeepEqual(*last, now)) {
				seen(now)
				last = &now
			}
		}
		return nil
	}}
	return relay.Serve(context.Background(), endpoint.Stdio())
}

// remoteHost is a host that ssh calls server, with VMs.
type remoteHost struct {
	sshd       *sshd.Server
	login      string // the script that a login runs
	domains    string // the file of its relay
	vms        []libvirt.Domain
	state      string
	knownHosts string // the file of ssh
}

// newRemoteHost starts the host's sshd. What the agents of this test call ssh is the real one with a configuration of its own.
func newRemoteHost(t *testing.T) *remoteHost {
	t.Helper()
	return newRemoteHostAt(t, "127.0.0.1", func(start func() error) { _ = start() }, "")
}

// newRemoteHostAt is newRemoteHost for a host at an address, in whose network there runs what it is given. more are options that
// count before those that the agents give ssh.
func newRemoteHostAt(t *testing.T, at string, there func(func() error), more string) *remoteHost {
	t.Helper()
	dir := t.TempDir()
	r := &remoteHost{login: filepath.Join(dir, "login"), domains: filepath.Join(dir, "domains"), state: filepath.Join(dir, "state"), knownHosts: filepath.Join(dir, "known_hosts")}
	t.Setenv("XDG_STATE_HOME", r.state)
	identity := filepath.Join(dir, "identity")
	sshd.NewKey(t, identity)
	const port = 2222
	r.sshd = sshd.New(t, netip.AddrPortFrom(netip.MustParseAddr(at), port), identity, "ForceCommand /bin/sh "+r.login+"\nMaxStartups 100\nClientAliveInterval 2\nClientAliveCountMax 3\n")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r.lead(t, fmt.Sprintf("case $SSH_ORIGINAL_COMMAND in\n'rum-host-agent relay') exec env %s=%s %s ;;\nesac\necho not expected: $SSH_ORIGINAL_COMMAND >&2; exit 1\n", asRelay, r.domains, self))
	r.tell(t)
	there(func() error { r.sshd.Start(t); return nil })
	(&namespace{}).awaitHere(t, fmt.Sprintf("%s:%d", at, port), "SSH-2.0")
	hostKey, err := os.ReadFile(filepath.Join(r.sshd.Dir, "host.pub"))
	if err != nil {
		t.Fatal(err)
	}
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Fatalf("%v: install openssh-client", err)
	}
	config := filepath.Join(dir, "ssh_config")
	for name, text := range map[string]string{
		r.knownHosts: fmt.Sprintf("[%s]:%d %s", at, port, hostKey),
		config: fmt.Sprintf("Host server\nHostName %s\nPort %d\nUser %s\nIdentityFile %s\nIdentitiesOnly yes\nUserKnownHostsFile %s\nGlobalKnownHostsFile none\n",
			at, port, r.sshd.User, identity, r.knownHosts),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "ssh"), fmt.Appendf(nil, "#!/bin/sh\nexec %s -F %s %s \"$@\"\n", ssh, config, more), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return r
}

// awaitHere is awaitAnswer in the tests' own namespace.
func (*namespace) awaitHere(t *testing.T, addr, hello string) {
	t.Helper()
	eventually(t, addr+" to answer", func() bool { return answers(addr, hello) })
}

// lead says what a login does.
func (r *remoteHost) lead(t *testing.T, script string) {
	t.Helper()
	if err := os.WriteFile(r.login, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tell has the relay see the VMs as they are.
func (r *remoteHost) tell(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(r.vms)
	if err == nil {
		err = os.WriteFile(r.domains+"~", text, 0o600)
	}
	if err == nil {
		err = os.Rename(r.domains+"~", r.domains)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// add has the host have a guest as a VM, of which this host has the key.
func (r *remoteHost) add(t *testing.T, g *guestVM) {
	t.Helper()
	d := libvirt.Domain{Name: g.name, UUID: uuid.NewString(), State: libvirt.Running, Boots: 1, Endpoint: "unix:" + g.socket}
	if g.key != "" {
		key, err := keyfile.Read(g.key)
		if err != nil {
			t.Fatal(err)
		}
		store := keys.Store{Dir: filepath.Join(r.state, "rum-agent", "keys")}
		if err := store.Keep("server/"+g.name, keys.RemoteIdentity("server", d.UUID), key); err != nil {
			t.Fatal(err)
		}
	}
	r.vms = append(r.vms, d)
	r.tell(t)
}

// serve starts a host agent for the host, and waits for its links.
func (r *remoteHost) serve(t *testing.T, args ...string) *hostAgent {
	t.Helper()
	h := &hostAgent{socket: filepath.Join(t.TempDir(), "control.sock")}
	h.program = start(t, "rum-host-agent", append([]string{"run", "--socket", h.socket, "--http", "none", "--host", "ssh://server"}, args...)...)
	h.awaitLinks(t, len(r.vms))
	return h
}

func (h *hostAgent) awaitLinks(t *testing.T, n int) {
	t.Helper()
	eventually(t, "the links", func() bool {
		st, err := control.NewClient(h.socket).Status(t.Context())
		linked := 0
		for _, vm := range st.VMs {
			if vm.State == status.Connected && vm.Generation > 0 {
				linked++
			}
		}
		return err == nil && linked == n
	})
}

func TestVMsOfAnotherHostAreAtLocalhost(t *testing.T) {
	r := newRemoteHost(t)
	var guests []*guestVM
	for i, name := range []string{"dev", "shop", "test"} {
		g := newGuest(t, name)
		greet(g.listen(t, fmt.Sprintf("0.0.0.0:%d", 8081+i)), "hello from "+name)
		greet(g.listen(t, "0.0.0.0:8080"), "8080 of "+name)
		r.add(t, g)
		guests = append(guests, g)
	}
	h := r.serve(t)
	for i, g := range guests {
		name := "server/" + g.name
		f := h.awaitForward(t, name, 8081+i, "active", active)
		if !answers(fmt.Sprintf("127.0.0.1:%d", 8081+i), "hello from "+g.name) {
			t.Errorf("port %d does not answer", 8081+i)
		}
		vm := h.vm(t, name)
		if vm.Host != "server" {
			t.Errorf("%s is of the host %q", name, vm.Host)
		}
		if vm.Auth != "psk" || f.Path != "mux" || !strings.HasPrefix(vm.Endpoint, "ssh:server/") {
			t.Errorf("%s has auth %q, path %q and endpoint %q", name, vm.Auth, f.Path, vm.Endpoint)
		}
		if !answers(net.JoinHostPort(vm.Loopback, "8080"), "8080 of "+g.name) {
			t.Errorf("%s does not answer at %s", name, vm.Loopback)
		}
	}
	// Half-closes and resets cross it as they are.
	l := guests[0].listen(t, "0.0.0.0:9000")
	sums := make(chan string, 1)
	serveEach(l, func(c net.Conn) {
		fmt.Fprint(c, "begin ")
		all, err := io.ReadAll(c)
		if err == nil {
			fmt.Fprintf(c, "%d bytes", len(all))
		}
		sums <- fmt.Sprintf("%d bytes, %v", len(all), err)
	})
	h.awaitForward(t, "server/dev", 9000, "active", active)
	c, err := net.Dial("tcp", "127.0.0.1:9000")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(make([]byte, 3_000_000)); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "begin 3000000 bytes" {
		t.Errorf("the service answered %q, %v", got, err)
	}
	if got := <-sums; got != "3000000 bytes, <nil>" {
		t.Errorf("the service read %s", got)
	}
	c2, err := net.Dial("tcp", "127.0.0.1:9000")
	if err != nil {
		t.Fatal(err)
	}
	_ = c2.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(c2, make([]byte, 6)); err != nil { // the service has it
		t.Fatal(err)
	}
	_ = c2.(*net.TCPConn).SetLinger(0)
	_ = c2.Close()
	select {
	case got := <-sums:
		if !strings.Contains(got, "reset") {
			t.Errorf("the service read %s, want a reset", got)
		}
	case <-time.After(20 * time.Second):
		t.Error("the reset of a client did not reach the service")
	}
}
