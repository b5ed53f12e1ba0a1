package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// nic adds a NIC to the namespace.
func (ns *namespace) nic(t *testing.T, name, addr string) {
	t.Helper()
	ns.do(t, func() error {
		for _, args := range [][]string{
			{"link", "add", name, "type", "veth", "peer", "name", name + "p"}, {"addr", "add", addr, "dev", name},
			{"link", "set", name, "up"}, {"link", "set", name + "p", "up"},
		} {
			if err := command("ip", args...); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestTheHostHasANameInItsGuests(t *testing.T) {
	g := &guestVM{namespace: newNamespace(t)}
	hosts := filepath.Join(t.TempDir(), "hosts")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(hosts, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	named := func(what, ip, others string) {
		t.Helper()
		eventually(t, what, func() bool {
			text, err := os.ReadFile(hosts)
			return err == nil && strings.Contains(string(text), "\n"+ip+" host.rum.internal\n") &&
				strings.Count(string(text), "host.rum.internal") == 1 && strings.HasPrefix(string(text), others)
		})
	}
	machines, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	virtual := 0
	const own = "127.0.0.1 localhost\n127.0.1.1 dev\n"
	write(own)
	g.do(t, func() error {
		g.agent = start(t, "rum-guest-agent", "--listen", "unix:"+filepath.Join(t.TempDir(), "s"), "--hosts", hosts)
		return nil
	})
	// The NAT network comes first, as where a VM has no other.
	g.nic(t, "nat0", "10.0.2.15/24")
	g.do(t, func() error { return command("ip", "route", "add", "default", "via", "10.0.2.2") })
	named("the gateway", "10.0.2.2", own)
	// Links of programs in the guest are no NICs: a tap, an overlay, another address on the same card.
	for name, kind := range map[string][]string{
		"tap0": {"tuntap", "add", "tap0", "mode", "tap"}, "vx0": {"link", "add", "vx0", "type", "vxlan", "id", "7", "dstport", "4789", "dev", "nat0"},
		"mv0": {"link", "add", "mv0", "link", "nat0", "type", "macvlan"},
	} {
		virtual++
		g.do(t, func() error {
			for _, args := range [][]string{kind, {"addr", "add", fmt.Sprintf("10.%d.0.7/24", 8+virtual), "dev", name}, {"link", "set", name, "up"}} {
				if err := command("ip", args...); err != nil {
					return err
				}
			}
			return nil
		})
	}
	write(own)
	named("the gateway still", "10.0.2.2", own)
	// A bridge for containers, which has the first address itself, is no way to the host.
	g.nic(t, "docker0", "172.17.0.1/16")
	g.nic(t, "hostonly0", "192.168.50.104/24")
	named("the host's address on the host-only network", "192.168.50.1", own)
	// What cloud-init does.
	write("127.0.0.1 localhost\n127.0.1.1 renamed\n")
	g.do(t, func() error { return command("ip", "addr", "add", "192.168.50.105/24", "dev", "hostonly0") })
	named("it after the file was written anew", "192.168.50.1", "127.0.0.1 localhost\n127.0.1.1 renamed\n")
	g.do(t, func() error { return command("ip", "link", "del", "hostonly0") })
	named("the gateway again", "10.0.2.2", "127.0.0.1 localhost\n127.0.1.1 renamed\n")
	if text, err := os.ReadFile("/etc/hosts"); err != nil || string(text) != string(machines) {
		t.Error("the machine's own file is another now")
	}
}

func TestAFileThatCannotBeWrittenIsOneLineOfLog(t *testing.T) {
	g := &guestVM{namespace: newNamespace(t)}
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.Symlink("/nowhere", hosts); err != nil {
		t.Fatal(err)
	}
	g.nic(t, "hostonly0", "192.168.50.104/24")
	g.do(t, func() error {
		g.agent = start(t, "rum-guest-agent", "--listen", "unix:"+filepath.Join(t.TempDir(), "s"), "--hosts", hosts)
		return nil
	})
	eventually(t, "the reason", func() bool { return strings.Contains(g.agent.log.String(), "hosts is a symbolic link") })
	g.do(t, func() error { return command("ip", "addr", "add", "192.168.50.105/24", "dev", "hostonly0") })
	// Something that is logged after another look shows that there was one.
	if err := os.Remove(hosts); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hosts, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	g.do(t, func() error { return command("ip", "addr", "add", "192.168.50.106/24", "dev", "hostonly0") })
	eventually(t, "the name", func() bool { return strings.Contains(g.agent.log.String(), "the host has a name") })
	if n := strings.Count(g.agent.log.String(), "symbolic link"); n != 1 {
		t.Errorf("said %d times:\n%s", n, g.agent.log.String())
	}
}
