package integration

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// startWithout starts a host agent that lacks a capability, whoever runs the tests.
func startWithout(t *testing.T, capability string, args ...string) *hostAgent {
	t.Helper()
	h := &hostAgent{socket: filepath.Join(t.TempDir(), "control.sock")}
	args = append([]string{"--bounding-set", "-" + capability, "--inh-caps", "-" + capability, filepath.Join(bin, "rum-host-agent"), "run", "--socket", h.socket}, args...)
	h.program = startBy(t, tool(t, "setpriv", "util-linux"), args...)
	eventually(t, "the agent", func() bool {
		_, err := control.NewClient(h.socket).Status(t.Context())
		return err == nil
	})
	return h
}

// explain is what the command explain says.
func (h *hostAgent) explain(t *testing.T, args ...string) []status.Explanation {
	t.Helper()
	out, err := exec.Command(filepath.Join(bin, "rum-host-agent"), append([]string{"explain", "--json", "--socket", h.socket}, args...)...).Output()
	if err != nil {
		t.Fatalf("explain %v: %v\n%s", args, err, out)
	}
	var all struct{ Explanations []status.Explanation }
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	return all.Explanations
}

// wantFailure waits until explain finds a step that fails, in those words, and the remedy.
func (h *hostAgent) wantFailure(t *testing.T, step, words, remedy string, args ...string) {
	t.Helper()
	var last []status.Explanation
	// A VM counts as away after ten seconds, and the machine may be busy.
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		last = h.explain(t, args...)
		if len(last) != 1 || last[0].Works || !strings.Contains(last[0].Remedy, remedy) {
			continue
		}
		for _, s := range last[0].Steps {
			if s.Name == step && !s.OK && strings.Contains(s.Text, words) {
				return
			}
		}
	}
	t.Fatalf("explain %v: %+v; want step %q to fail: %s", args, last, step, words)
}

func TestExplainFindsAPortThatIsTakenAndWhoHasIt(t *testing.T) {
	g := newGuest(t, "dev")
	listenHost(t, "127.0.0.1:7700")
	greet(g.listen(t, "0.0.0.0:7700"), "hello")
	h := startHost(t, "", g)
	h.wantFailure(t, status.StepHost, fmt.Sprintf("127.0.0.1:7700 is held by %s[%d]", programName(t), os.Getpid()), "end what has it there", "7700")
}

// programName is this program's as the kernel has it.
func programName(t *testing.T) string {
	t.Helper()
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(comm))
}

func TestExplainNamesTheRuleThatKeepsAPortInTheGuest(t *testing.T) {
	g := newGuest(t, "dev")
	greet(g.listen(t, "0.0.0.0:7701"), "hello")
	greet(g.listen(t, "0.0.0.0:81"), "low")
	h := startHostRules(t, g, "# nothing\n[[ports]]\nguest = 7701\nignore = true\n")
	h.wantFailure(t, status.StepRule, "rum.toml:2 keeps it in the guest", "rum.toml:2", "7701")
	h.wantFailure(t, status.StepRule, "below 1024", "[[ports]] guest = 81, host = 8081", "81")
}

func TestExplainTellsThatTheBridgeDoesNotReachALoopbackOnlyService(t *testing.T) {
	g := newGuest(t, "dev")
	ip := g.joined(t)
	greet(g.listen(t, "127.0.0.1:7702"), "hello")
	greet(g.listen(t, "0.0.0.0:7703"), "everywhere")
	h := startHost(t, ",bridge="+ip, g)
	h.awaitForward(t, "dev", 7702, "active", active)
	g.agent.kill()
	h.wantFailure(t, status.StepRule, "is not reached at the bridge address "+ip, "or have the service listen on 0.0.0.0", "7702")
	all := h.explain(t, "7703")
	if len(all) != 1 || !all[0].Works {
		t.Errorf("what the bridge reaches: %+v", all)
	}
}

func TestExplainTellsThatNoAgentRunsInTheGuest(t *testing.T) {
	h := startAlone(t, "--vm", "dev=unix:"+filepath.Join(t.TempDir(), "none.sock"))
	h.wantFailure(t, status.StepLink, "no guest agent listens there", "start the guest agent there with: rum-guest-agent --listen unix:", "7704")
}

// startAlone starts a host agent, and waits for no guest.
func startAlone(t *testing.T, args ...string) *hostAgent {
	t.Helper()
	h := &hostAgent{socket: filepath.Join(t.TempDir(), "control.sock")}
	h.program = start(t, "rum-host-agent", append([]string{"run", "--socket", h.socket}, args...)...)
	eventually(t, "the agent", func() bool {
		_, err := control.NewClient(h.socket).Status(t.Context())
		return err == nil
	})
	return h
}

func TestExplainTellsThatTheVMMayBePaused(t *testing.T) {
	g := newGuest(t, "dev")
	greet(g.listen(t, "0.0.0.0:7705"), "hello")
	h := startHost(t, "", g)
	h.awaitForward(t, "dev", 7705, "active", active)
	if err := syscall.Kill(g.agent.cmd.Process.Pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(g.agent.cmd.Process.Pid, syscall.SIGCONT) })
	h.wantFailure(t, status.StepLink, "may be paused", "virsh resume dev", "7705")
}

func TestExplainTellsThatTheDeviceMayNotBeOpened(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent")
	listenSocket(t, socket)
	if err := os.Chmod(socket, 0); err != nil {
		t.Fatal(err)
	}
	h := startWithout(t, "dac_override", "--vm", "dev=serial:"+socket)
	h.wantFailure(t, status.StepLink, "permission denied", fmt.Sprintf("setfacl -m u:%d:rw %s", os.Getuid(), socket), "7706")
}

func TestExplainTellsWhatAllowsARuleItsPrivilegedPort(t *testing.T) {
	g := newGuest(t, "dev")
	greet(g.listen(t, "0.0.0.0:7707"), "hello")
	file := filepath.Join(t.TempDir(), "rum.toml")
	if err := os.WriteFile(file, []byte("[[ports]]\nguest = 7707\nhost = 80\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := startWithout(t, "net_bind_service", "--config", file, "--vm", g.vm())
	h.wantFailure(t, status.StepHost, "127.0.0.1:80 needs a permission", "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=80", "7707")
}

func TestExplainRemembersAServiceThatDied(t *testing.T) {
	g := newGuest(t, "dev")
	l := g.listen(t, "0.0.0.0:7708")
	h := startHost(t, "", g)
	h.awaitForward(t, "dev", 7708, "named", func(f status.Forward) bool { return active(f) && f.Process != "" })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	h.wantFailure(t, status.StepListener, fmt.Sprintf("nothing listens on 7708/tcp any more; %s[%d] did until", programName(t), os.Getpid()), "start it again in the guest", "7708")
}

func TestExplainKnowsListenersOfOurOwn(t *testing.T) {
	g := newGuest(t, "vm")
	greet(g.listen(t, "0.0.0.0:7709"), "hello")
	file, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	container := &guestVM{namespace: &namespace{file: file}, name: "container", socket: filepath.Join(t.TempDir(), "s")}
	container.startAgent(t)
	h := startHost(t, "", g, container)
	h.awaitForward(t, "vm", 7709, "active", active)
	h.wantFailure(t, status.StepListener, "is this host agent itself", "connections would come back", "7709", "--vm", "container")
}

func TestExplainTellsOfMulticastSocketsAndWhereTheyAreSeen(t *testing.T) {
	g := newGuest(t, "dev")
	g.bindUDP(t, netip.MustParseAddrPort("239.255.255.250:7710"))
	h := startHost(t, "", g)
	h.wantFailure(t, status.StepListener, "multicast", "rum-guest-agent ports", "7710", "--udp")
}

func TestExplainTellsThatTheKeyIsAnother(t *testing.T) {
	g := newGuest(t, "dev")
	other := filepath.Join(t.TempDir(), "other")
	if err := keyfile.WritePrivate(other, keyfile.New().Encode()); err != nil {
		t.Fatal(err)
	}
	h := startAlone(t, "--vm", "dev=unix:"+g.socket+",key="+other)
	h.wantFailure(t, status.StepLink, "authentication failed", "put the key that ,key= names into the guest's /etc/rum-agent/key", "7711")
}
