package integration

import (
	"encoding/json"
	"errors"
	"fmt"
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

// heldBySomebody: who has the address is found a moment after it was not to be had.
func heldBySomebody(f status.Forward) bool {
	return f.State == status.Claim && strings.Contains(f.Reason, "is held by")
}

func TestDoctorFindsWhatKeepsAPortFromBeingHere(t *testing.T) {
	g := newGuest(t, "dev")
	listenHost(t, "127.0.0.1:7760")
	greet(g.listen(t, "0.0.0.0:7760"), "hello")
	greet(g.listen(t, "0.0.0.0:7761"), "hello")
	h := startHost(t, "", g)
	h.awaitForward(t, "dev", 7761, "active", active)
	h.awaitForward(t, "dev", 7760, "a claim whose holder is known", heldBySomebody)
	wantCheck(t, examined(t, nil, h.socket), "dev 7760/tcp", "127.0.0.1:7760 is held by", "")
	g.agent.kill()
	eventually(t, "the agent to be missed", func() bool { return h.vm(t, "dev").State == status.Down })
	wantCheck(t, examined(t, nil, h.socket), "dev", "dev is down", "rum-guest-agent --listen unix:"+g.socket)
}

func TestDoctorFindsWhoHasAPortOfARuleBeforeTheGuestListens(t *testing.T) {
	g := newGuest(t, "dev")
	listenHost(t, "127.0.0.1:7770")
	listenHost(t, "127.0.0.1:7772")
	greet(g.listen(t, "0.0.0.0:7771"), "hello")
	greet(g.listen(t, "0.0.0.0:7772"), "hello")
	h := startHostRules(t, g, "[[forward]]\nguest = \"7770-7779\"\n")
	h.awaitForward(t, "dev", 7771, "active", active)
	h.awaitForward(t, "dev", 7772, "a claim whose holder is known", heldBySomebody)
	all := examined(t, nil, h.socket)
	wantCheck(t, all, "configuration", fmt.Sprintf("127.0.0.1:7770, which the rule at rum.toml:1 wants, is held by %s[%d]", programName(t), os.Getpid()), "")
	wantCheck(t, all, "dev 7772/tcp", "127.0.0.1:7772 is held by", "")
	for _, c := range all {
		if c.Name == "configuration" && (strings.Contains(c.Text, ":7771") || strings.Contains(c.Text, ":7772")) {
			t.Errorf("of a port that is a forward's: %+v", c)
		}
	}
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
