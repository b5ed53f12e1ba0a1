//go:build e2e

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/setup"
	"github.com/rum-vm/rum-agent/test/vm"
)

// bootLimit is long: guests run in emulation, on machines that do other things too.
const bootLimit = 3 * time.Minute

// echo serves port 8080 with the lines it gets.
const echo = "nc -ll -p 8080 -e cat &\n"

const agentChannel = "    <channel type='unix'><target type='virtio' name='rum.agent.0'/></channel>\n"

func start(t *testing.T, name string) {
	t.Helper()
	virsh(t, "start", name)
}

// dialEcho connects to a guest's echo service, which may come up a moment after its address.
func dialEcho(t *testing.T, addr netip.AddrPort) *echoConn {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		c, err := net.DialTimeout("tcp", addr.String(), 5*time.Second)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return &echoConn{c, bufio.NewReader(c)}
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

type echoConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *echoConn) say(t *testing.T, line string) {
	t.Helper()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := fmt.Fprintln(c, line); err != nil {
		t.Fatal(err)
	}
	got, err := c.r.ReadString('\n')
	if err != nil || got != line+"\n" {
		t.Fatalf("got %q, %v", got, err)
	}
}

// A virtio-serial controller that is missing cannot be plugged into every machine while it runs.
func TestWhatSetupCouldNotPlugInIsSaidToComeWithTheNextStart(t *testing.T) {
	define(t, "late", bare("late", "q35", ""))
	virsh(t, "start", "--paused", "late")
	w := startWatch(t)
	w.domain(t, "late", "has no way to its agent", 10*time.Second, func(d libvirt.Domain) bool {
		return strings.Contains(d.Problem, "run 'rum-host-agent setup late'")
	})
	opts := options
	opts.NAT = ""
	setUp(t, "late", opts)
	w.domain(t, "late", "is told of its next start", 10*time.Second, func(d libvirt.Domain) bool {
		return strings.Contains(d.Problem, "shut it down, and start it")
	})
}

// TestAGuestIsFollowedThroughItsLife has one guest live through all that can happen to it, because every boot costs time.
func TestAGuestIsFollowedThroughItsLife(t *testing.T) {
	define(t, "life", guestXML(t, "life", vm.Initramfs{Script: echo}, agentChannel))
	opts := options
	opts.NAT = ""
	setUp(t, "life", opts)

	w := startWatch(t)
	off, _ := w.domain(t, "life", "defined", 5*time.Second, func(d libvirt.Domain) bool { return d.State == libvirt.Off })
	if off.Endpoint != "" || off.BridgeIP.IsValid() || off.Boots != 0 {
		t.Errorf("a domain that is off has %+v", off)
	}

	start(t, "life")
	found, took := w.domain(t, "life", "running", 5*time.Second, func(d libvirt.Domain) bool { return d.State == libvirt.Running })
	t.Logf("the start is seen %v after virsh", took)
	if !strings.HasPrefix(found.Endpoint, "serial:/var/lib/libvirt/qemu/channel/") || found.Problem != "" || found.Boots != 1 {
		t.Errorf("a running domain has %+v", found)
	}
	if socket := strings.TrimPrefix(found.Endpoint, "serial:"); !answers(socket) {
		t.Errorf("nothing listens on %s", socket)
	}

	leased, took := w.domain(t, "life", "leased", bootLimit, func(d libvirt.Domain) bool { return d.BridgeIP.IsValid() })
	t.Logf("the lease is seen %v after the start", took)
	if !options.Subnet.Contains(leased.BridgeIP) {
		t.Errorf("bridge address %v is not of %v", leased.BridgeIP, options.Subnet)
	}
	conn := dialEcho(t, netip.AddrPortFrom(leased.BridgeIP, 8080))
	conn.say(t, "before")

	t.Run("network status names the guest", func(t *testing.T) {
		n, err := open(t).NetworkStatus(t.Context(), hostOnly)
		if err != nil {
			t.Fatal(err)
		}
		if !n.Active || !n.Autostart || !n.Ours || n.Forward != "" || n.Subnet.String() != "192.168.50.1/24" ||
			n.DHCP != "192.168.50.100-192.168.50.254" || n.Bridge == "" {
			t.Errorf("got %+v", n)
		}
		if len(n.Leases) != 1 || n.Leases[0].Domain != "life" || n.Leases[0].IP != leased.BridgeIP {
			t.Errorf("leases: %+v", n.Leases)
		}
	})

	t.Run("suspend and resume keep the connection", func(t *testing.T) {
		virsh(t, "suspend", "life")
		_, took := w.domain(t, "life", "paused", 5*time.Second, func(d libvirt.Domain) bool { return d.State == libvirt.Paused })
		virsh(t, "resume", "life")
		again, back := w.domain(t, "life", "resumed", 5*time.Second, func(d libvirt.Domain) bool { return d.State == libvirt.Running })
		t.Logf("the pause is seen after %v, the end of it after %v", took, back)
		if again != leased {
			t.Errorf("before %+v, after %+v", leased, again)
		}
		conn.say(t, "after")
	})

	t.Run("a libvirtd restart loses nothing", func(t *testing.T) {
		if err := libvirtd.stop(); err != nil {
			t.Fatal(err)
		}
		lost, took := w.until(t, "libvirtd is gone", 5*time.Second, func(s libvirt.Snapshot) bool { return s.Err != nil })
		t.Logf("the loss is seen after %v: %v", took, lost.Err)
		if !errors.Is(lost.Err, libvirt.ErrUnavailable) {
			t.Errorf("error is %v", lost.Err)
		}
		if len(lost.Domains) != 1 || lost.Domains[0] != leased {
			t.Errorf("without libvirtd the domains are %+v", lost.Domains)
		}
		conn.say(t, "meanwhile")
		if err := libvirtd.start(); err != nil {
			t.Fatal(err)
		}
		virsh(t, "version") // returns when libvirtd has read what it looks after
		back, took := w.domain(t, "life", "seen again", 15*time.Second, func(d libvirt.Domain) bool { return true })
		t.Logf("libvirtd is back in use %v after it is ready", took)
		if back != leased {
			t.Errorf("before %+v, after %+v", leased, back)
		}
	})

	t.Run("a reset is another boot", func(t *testing.T) {
		virsh(t, "reset", "life")
		reset, took := w.domain(t, "life", "rebooted", 10*time.Second, func(d libvirt.Domain) bool { return d.Boots > leased.Boots })
		t.Logf("the reset is seen after %v", took)
		if reset.Endpoint != leased.Endpoint {
			t.Errorf("before %+v, after %+v", leased, reset)
		}
	})

	t.Run("a start is another boot with another socket", func(t *testing.T) {
		virsh(t, "destroy", "life")
		ended, took := w.domain(t, "life", "off", 5*time.Second, func(d libvirt.Domain) bool { return d.State == libvirt.Off && d.Endpoint == "" })
		t.Logf("the end is seen after %v", took)
		start(t, "life")
		w.domain(t, "life", "running again", 5*time.Second, func(d libvirt.Domain) bool {
			return d.State == libvirt.Running && d.Boots > ended.Boots && d.Endpoint != leased.Endpoint
		})
	})
}

// TestSetupReachesARunningGuest plugs the NIC into a running guest, and unplugs it.
func TestSetupReachesARunningGuest(t *testing.T) {
	hotplug := echo + `echo plugged-script
while ! [ -e /sys/class/net/eth0 ]; do usleep 200000; done
ip link set eth0 up; udhcpc -f -q -t 30 -T 2 -i eth0 -s /etc/rum/dhcp
echo up >/dev/virtio-ports/rum.test.shell
`
	define(t, "live", guestXML(t, "live", vm.Initramfs{Script: hotplug}, ""))
	w := startWatch(t)
	start(t, "live")
	bare, _ := w.domain(t, "live", "running", 5*time.Second, func(d libvirt.Domain) bool { return d.State == libvirt.Running })
	if bare.Endpoint != "" || !strings.Contains(bare.Problem, "rum-host-agent setup live") {
		t.Errorf("a domain that nothing reaches has %+v", bare)
	}
	waitConsole(t, "live", "plugged-script") // QEMU cannot plug a PCIe device into a firmware

	opts := options
	opts.NAT = ""
	if result := setUp(t, "live", opts); len(result.Restart) != 0 {
		t.Errorf("a restart is needed: %q", result.Restart)
	}
	w.domain(t, "live", "has a channel", 5*time.Second, func(d libvirt.Domain) bool {
		return strings.HasPrefix(d.Endpoint, "serial:") && d.Problem == ""
	})
	leased, took := w.domain(t, "live", "leased", bootLimit, func(d libvirt.Domain) bool { return d.BridgeIP.IsValid() })
	t.Logf("the plugged NIC has a lease after %v", took)
	dialEcho(t, netip.AddrPortFrom(leased.BridgeIP, 8080)).say(t, "plugged")

	c := open(t)
	undo, err := setup.NewUndo(t.Context(), c, "live", hostOnly)
	if err != nil {
		t.Fatal(err)
	}
	result, err := setup.Apply(t.Context(), c, undo)
	if err != nil || len(result.Restart) != 0 {
		t.Fatalf("%+v, %v", result, err)
	}
	w.domain(t, "live", "without NIC and channel", 30*time.Second, func(d libvirt.Domain) bool {
		return d.Endpoint == "" && !d.BridgeIP.IsValid()
	})
}

func TestAllDomainsAreListedAtOnce(t *testing.T) {
	for i := range 20 {
		name := fmt.Sprintf("many%02d", i)
		define(t, name, bare(name, "pc", ""))
	}
	begin := time.Now()
	w := startWatch(t)
	w.until(t, "all domains", 2*time.Second, func(s libvirt.Snapshot) bool { return s.Err == nil && len(s.Domains) == 20 })
	t.Logf("20 domains are listed after %v", time.Since(begin))
}

func TestLeavingPutsNoErrorIntoTheDaemonsLog(t *testing.T) {
	complaints := func() int {
		log, err := os.ReadFile(libvirtd.log())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(log), "End of file while reading")
	}
	before := complaints()
	for range 5 {
		c, err := libvirt.Open(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	virsh(t, "version") // by its answer the daemon has dealt with those before
	if n := complaints() - before; n != 0 {
		t.Errorf("5 connections left %d errors", n)
	}
}
