//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/vm"
)

// hostAgent is a running rum-host-agent.
type hostAgent struct {
	socket string
}

// startHostAgent runs rum-host-agent with a socket of its own; it finds VMs without being told.
func startHostAgent(t *testing.T, args ...string) *hostAgent {
	t.Helper()
	a := &hostAgent{socket: filepath.Join(t.TempDir(), "agent.sock")}
	a.run(t, exec.Command(filepath.Join(os.Getenv(binVariable), "rum-host-agent"), append([]string{"run", "--socket", a.socket}, args...)...))
	return a
}

// run runs the agent until the test ends.
func (a *hostAgent) run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("rum-host-agent: %v", err)
		}
		if t.Failed() {
			t.Logf("rum-host-agent:\n%s", log.Bytes())
		}
	})
}

// until waits until the status fits, and returns how long that took.
func (a *hostAgent) until(t *testing.T, what string, limit time.Duration, fits func(status.Status) bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		st, err := control.NewClient(a.socket).Status(ctx)
		cancel()
		if err == nil && fits(st) {
			return time.Since(begin)
		}
		if time.Since(begin) > limit {
			text, _ := json.MarshalIndent(st, "", "  ")
			t.Fatalf("not within %v: %s\n%v\n%s", limit, what, err, text)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// forward waits until a VM's port is in the state, and returns it.
func (a *hostAgent) forward(t *testing.T, vmName string, port uint16, what string, limit time.Duration, fits func(status.VM, status.Forward) bool) (status.Forward, time.Duration) {
	t.Helper()
	var found status.Forward
	took := a.until(t, fmt.Sprintf("%s:%d %s", vmName, port, what), limit, func(st status.Status) bool {
		for _, v := range st.VMs {
			for _, f := range v.Forwards {
				if v.Name == vmName && f.Port == port && fits(v, f) {
					found = f
					return true
				}
			}
		}
		return false
	})
	return found, took
}

// agentGuest defines a domain whose guest runs rum-guest-agent and the script.
func agentGuest(t *testing.T, name, script string) {
	t.Helper()
	xml := guestXML(t, name, vm.Initramfs{
		Script: script,
		Agent:  filepath.Join(os.Getenv(binVariable), "rum-guest-agent"),
	}, shellChannel(name))
	define(t, name, xml)
	opts := options
	opts.NAT = ""
	setUp(t, name, opts)
}

// shellChannel gives the test a shell in the guest.
func shellChannel(name string) string {
	return fmt.Sprintf("    <channel type='unix'><source mode='bind' path='/run/%s.shell'/><target type='virtio' name='%s'/></channel>\n", name, vm.ShellPort)
}

// tell runs a command in a guest's shell and waits until it is done. QEMU drops
// what reaches it while the guest's end of the port is closed, as it is for a
// moment after each client, so the command is repeated until it is answered:
// it must bear that.
func tell(t *testing.T, name, command string) {
	t.Helper()
	c, err := net.Dial("unix", "/run/"+name+".shell")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answered := bufio.NewReader(c)
	for range 10 {
		if _, err := fmt.Fprintf(c, "%s; echo told\n", command); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		for {
			line, err := answered.ReadString('\n')
			if strings.TrimSpace(line) == "told" {
				return
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Fatalf("guest %s does not answer to %q", name, command)
}

// page is what the guest's web server says on a host address.
func page(addr string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	return strings.TrimSpace(string(buf[:n])), err
}

func wantPage(t *testing.T, addr, want string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		got, err := page(addr)
		if err == nil && got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: got %q, %v; want %q", addr, got, err, want)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// serve answers every connection to port 8080 with the guest's name.
const serve = `nc -ll -p 8080 -e hostname &
nc -ll -p 8081 -e cat &
`

// TestTwoGuestsKeepTheSamePort is the whole chain: libvirt, agents, host ports; two guests, one port.
func TestTwoGuestsKeepTheSamePort(t *testing.T) {
	agentGuest(t, "one", serve)
	agentGuest(t, "two", serve)
	a := startHostAgent(t)
	start(t, "one")
	_, took := a.forward(t, "one", 8080, "active", bootLimit, func(_ status.VM, f status.Forward) bool { return f.State == status.Active })
	t.Logf("localhost:8080 leads to guest one %v after its start", took)
	wantPage(t, "127.0.0.1:8080", "one")

	start(t, "two")
	claim, took := a.forward(t, "two", 8080, "claimed", bootLimit, func(_ status.VM, f status.Forward) bool { return f.State == status.Claim })
	t.Logf("guest two has its claim after %v: %s", took, claim.Reason)
	if !strings.Contains(claim.Reason, "held by VM one") {
		t.Errorf("the claim does not name its holder: %q", claim.Reason)
	}

	a.until(t, "bridge addresses", bootLimit, func(st status.Status) bool { return st.VMs[0].BridgeIP != "" && st.VMs[1].BridgeIP != "" })
	rum(t, "status", "--socket", a.socket)
	rum(t, "network", "status")
	own := ownAddresses(t, a, "one", "two")
	for _, name := range []string{"one", "two"} {
		at := own[name] + ":8080"
		a.forward(t, name, 8080, "on its own address", 10*time.Second, func(_ status.VM, f status.Forward) bool {
			return slices.Contains(f.Listening, at)
		})
		wantPage(t, at, name)
	}

	t.Run("a new agent lists both within 2 s, and gives them the same addresses", func(t *testing.T) {
		b := startHostAgent(t)
		took := b.until(t, "both VMs", 2*time.Second, func(st status.Status) bool { return len(st.VMs) == 2 })
		t.Logf("both VMs are listed after %v", took)
		if got := ownAddresses(t, b, "one", "two"); !maps.Equal(got, own) {
			t.Errorf("the new agent gives %v, the first one gave %v", got, own)
		}
	})

	t.Run("suspend keeps the forward and its connection", func(t *testing.T) {
		conn := dialEcho(t, netip.MustParseAddrPort("127.0.0.1:8081"))
		conn.say(t, "before")
		virsh(t, "suspend", "one")
		took := a.until(t, "paused", 20*time.Second, func(st status.Status) bool { return st.VMs[0].State == status.Paused })
		t.Logf("the pause is shown after %v", took)
		virsh(t, "resume", "one")
		took = a.until(t, "connected", 20*time.Second, func(st status.Status) bool { return st.VMs[0].State == status.Connected })
		t.Logf("the resumed guest is connected after %v", took)
		conn.say(t, "after")
		wantPage(t, "127.0.0.1:8080", "one")
	})

	t.Run("without its agent the bridge carries", func(t *testing.T) {
		tell(t, "one", "touch /run/agent-off; killall rum-guest-agent")
		_, took := a.forward(t, "one", 8080, "over the bridge", 30*time.Second, func(_ status.VM, f status.Forward) bool {
			return f.State == status.Active && f.Path == "bridge"
		})
		t.Logf("the path is bridge after %v", took)
		wantPage(t, "127.0.0.1:8080", "one")
		tell(t, "one", "rm /run/agent-off")
		_, took = a.forward(t, "one", 8080, "over the link", 60*time.Second, func(_ status.VM, f status.Forward) bool {
			return f.Path == "mux"
		})
		t.Logf("the path is the link again after %v", took)
		wantPage(t, "127.0.0.1:8080", "one")
	})

	t.Run("libvirtd may restart", func(t *testing.T) {
		if err := libvirtd.stop(); err != nil {
			t.Fatal(err)
		}
		a.until(t, "an error", 10*time.Second, func(st status.Status) bool {
			return len(st.Discovery) == 1 && st.Discovery[0].Error != "" && len(st.VMs) == 2
		})
		wantPage(t, "127.0.0.1:8080", "one")
		if err := libvirtd.start(); err != nil {
			t.Fatal(err)
		}
		a.until(t, "no error", 60*time.Second, func(st status.Status) bool { return st.Discovery[0].Error == "" && len(st.VMs) == 2 })
	})

	t.Run("a reset guest is found again", func(t *testing.T) {
		virsh(t, "reset", "two")
		took := a.until(t, "two is gone", 10*time.Second, func(st status.Status) bool { return st.VMs[1].State != status.Connected })
		t.Logf("the reset shows after %v", took)
		took = a.until(t, "two is back", bootLimit, func(st status.Status) bool { return st.VMs[1].State == status.Connected })
		t.Logf("the guest is connected again %v later", took)
	})

	t.Run("when the first leaves the next takes over", func(t *testing.T) {
		a.forward(t, "two", 8080, "claimed", bootLimit, func(_ status.VM, f status.Forward) bool { return f.State == status.Claim })
		conn := dialEcho(t, netip.MustParseAddrPort(own["two"]+":8081"))
		conn.say(t, "before")
		virsh(t, "destroy", "one")
		_, took := a.forward(t, "two", 8080, "active", 10*time.Second, func(_ status.VM, f status.Forward) bool { return f.State == status.Active })
		t.Logf("guest two has the port after %v", took)
		wantPage(t, "127.0.0.1:8080", "two")
		wantPage(t, own["two"]+":8080", "two")
		conn.say(t, "after")
		a.until(t, "one is gone", 5*time.Second, func(st status.Status) bool { return len(st.VMs) == 1 && st.VMs[0].Name == "two" })
	})
}

// ownAddresses are the VMs' own loopback addresses, each another one.
func ownAddresses(t *testing.T, a *hostAgent, names ...string) map[string]string {
	t.Helper()
	own := make(map[string]string)
	a.until(t, "own addresses", 10*time.Second, func(st status.Status) bool {
		for _, v := range st.VMs {
			if slices.Contains(names, v.Name) {
				own[v.Name] = v.Loopback
			}
		}
		return len(own) == len(names)
	})
	seen := make(map[string]bool)
	for name, addr := range own {
		if ip, err := netip.ParseAddr(addr); err != nil || !ip.IsLoopback() || seen[addr] {
			t.Fatalf("the own address of %s is %q, among %v", name, addr, own)
		}
		seen[addr] = true
	}
	return own
}

// TestStaticPortsNeedNoAgent has a guest with neither agent nor channel; and a port that QEMU itself forwards.
func TestStaticPortsNeedNoAgent(t *testing.T) {
	const nic = `    <interface type='network'>
      <source network='rum-hostonly'/>
      <model type='virtio'/>
    </interface>
`
	opts := options
	opts.NAT = ""
	define(t, "other", bare("other", "pc", ""))
	setUp(t, "other", opts) // makes the network
	define(t, "plain", guestXML(t, "plain", vm.Initramfs{Script: serve}, nic))
	hostfwd := strings.Replace(bare("hostfwd", "pc", ""), "<domain type='qemu'>", "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>", 1)
	hostfwd = strings.Replace(hostfwd, "</domain>", `<qemu:commandline><qemu:arg value='-netdev'/>
		<qemu:arg value='user,id=u,hostfwd=tcp:127.0.0.1:18081-:22'/></qemu:commandline></domain>`, 1)
	define(t, "hostfwd", hostfwd)
	contains(t, rum(t, "setup", "hostfwd", "--dry-run"), "already forwarded to this domain: tcp 127.0.0.1:18081 -> guest port 22 (hostfwd)")
	start(t, "hostfwd")

	rules := filepath.Join(t.TempDir(), "rum.toml")
	const text = `[[ports]]
vm = "plain"
guest = "8080-8081"
host = "18080-18081"
static = true
`
	if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a := startHostAgent(t, "--config", rules)
	start(t, "plain")
	_, took := a.forward(t, "plain", 8080, "over the bridge", bootLimit, func(v status.VM, f status.Forward) bool {
		return f.State == status.Active && f.Path == "bridge"
	})
	t.Logf("the static port leads over the bridge %v after the start", took)
	wantPage(t, "127.0.0.1:18080", "plain")
	a.forward(t, "plain", 8081, "claimed from QEMU", 10*time.Second, func(_ status.VM, f status.Forward) bool {
		return f.State == status.Claim && strings.Contains(f.Reason, "the hostfwd of VM hostfwd")
	})
	rum(t, "status", "--socket", a.socket)
	virsh(t, "destroy", "hostfwd")
	a.forward(t, "plain", 8081, "taken over", 10*time.Second, func(_ status.VM, f status.Forward) bool { return f.State == status.Active })
}
