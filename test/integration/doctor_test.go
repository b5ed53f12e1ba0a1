package integration

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// examined is what doctor finds, run by way of other programs; an exit status that contradicts it fails the test.
func examined(t *testing.T, env []string, socket string, by ...string) []status.Check {
	t.Helper()
	args := append(by, filepath.Join(bin, "rum-host-agent"), "doctor", "--json", "--socket", socket)
	c := exec.Command(args[0], args[1:]...)
	c.Env = append(append(os.Environ(), "LIBVIRT_DEFAULT_URI=none"), env...)
	out, err := c.Output()
	var all struct {
		Well   bool
		Checks []status.Check
	}
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	exit, failed := errors.AsType[*exec.ExitError](err)
	if failed && exit.ExitCode() != 1 || failed == all.Well {
		t.Errorf("well is %v, and doctor exits: %v", all.Well, err)
	}
	return all.Checks
}

// wantCheck looks for what doctor finds wrong.
func wantCheck(t *testing.T, all []status.Check, name, words, command string) {
	t.Helper()
	for _, c := range all {
		if c.Name == name && !c.OK && strings.Contains(c.Text, words) && c.Command == command {
			return
		}
	}
	t.Errorf("no %s with %q and %q in %+v", name, words, command, all)
}

func TestDoctorFindsWhatKeepsAPortFromBeingHere(t *testing.T) {
	g := newGuest(t, "dev")
	listenHost(t, "127.0.0.1:7760")
	greet(g.listen(t, "0.0.0.0:7760"), "hello")
	greet(g.listen(t, "0.0.0.0:7761"), "hello")
	h := startHost(t, "", g)
	h.awaitForward(t, "dev", 7761, "active", active)
	wantCheck(t, examined(t, nil, h.socket), "dev 7760/tcp", "127.0.0.1:7760 is held by", "")
	g.agent.kill()
	eventually(t, "the agent to be missed", func() bool { return h.vm(t, "dev").State == status.Down })
	wantCheck(t, examined(t, nil, h.socket), "dev", "dev is down", "rum-guest-agent --listen unix:"+g.socket)
}

func TestDoctorTellsFromWhichPortOnAUserMayHaveThem(t *testing.T) {
	lacks := []string{tool(t, "setpriv", "util-linux"), "--bounding-set", "-net_bind_service", "--inh-caps", "-net_bind_service"}
	const setting = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
	nowhere := filepath.Join(t.TempDir(), "none.sock")
	for _, c := range examined(t, nil, nowhere, lacks...) {
		if c.Name == "low ports" && (!c.OK || !strings.Contains(c.Text, "from 1024 on")) {
			t.Errorf("%+v", c)
		}
	}
	if err := os.WriteFile(setting, []byte("3000"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile(setting, []byte("1024"), 0) })
	wantCheck(t, examined(t, nil, nowhere, lacks...), "low ports", "from 3000 on", "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=1024")
}

func TestDoctorTellsThatLibvirtDoesNotLetThisUserIn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "libvirt-sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	lacks := []string{tool(t, "setpriv", "util-linux"), "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-dac_override,-dac_read_search"}
	all := examined(t, []string{"LIBVIRT_DEFAULT_URI=qemu+unix:///system?socket=" + path}, filepath.Join(t.TempDir(), "none.sock"), lacks...)
	wantCheck(t, all, "libvirt", "permission denied", "sudo usermod -aG libvirt $USER")
}
