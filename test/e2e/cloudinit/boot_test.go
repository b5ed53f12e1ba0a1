//go:build e2e

package e2e

import (
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/cloudinit"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// userData uses what a vendor's cloud-config would have taken over, or lost to: bootcmd, write_files, runcmd.
const userData = `#cloud-config
bootcmd:
  - [sh, -c, "echo $(systemctl is-active rum-guest-agent) >/var/bootcmd"]
write_files:
  - path: /srv/page
    content: |
      hello from the guest
  - path: /etc/systemd/system/web.service
    content: |
      [Service]
      ExecStart=/usr/bin/python3 -m http.server --directory /srv 8080
      [Install]
      WantedBy=multi-user.target
runcmd:
  - echo ran >>/var/runcmd
  - systemctl enable --now web.service
`

const service = "rum-guest-agent.service"

// installedFiles are the seed's traces in the guest.
const installedFiles = "/usr/local/bin/rum-guest-agent /usr/local/bin/rum-open /etc/rum-agent/key /etc/systemd/system/rum-guest-agent.service /var/lib/rum-agent/applied"

func TestSeedBringsTheAgentUpAndUpgradesIt(t *testing.T) {
	m := newMachine(t)
	store := keys.Store{Dir: filepath.Join(m.dir, "state", "rum-agent", "keys")}
	key, err := store.Draft("dev", "")
	if err == nil {
		err = store.Keep("dev", "", key)
	}
	if err != nil {
		t.Fatal(err)
	}
	seed := cloudinit.Seed{
		Name: "dev", Hostname: "dev-box", AuthorizedKeys: []string{m.publicKey}, UserData: []byte(userData), Key: key,
		NAT: parseMAC(t, natMAC), HostOnly: parseMAC(t, hostOnlyMAC),
	}
	host := startHostAgent(m, seed.Key)

	m.powerOn(writeSeed(m, seed, oldVersion))
	if ok := t.Run("first boot", func(t *testing.T) {
		checkAgent(t, m, oldVersion)
		checkKey(t, m, seed.Key)
		checkNetwork(t, m)
		checkUsersOwn(t, m)
		checkCloudInit(t, m)
		host.waitForPage(m.ctx, 8080, "hello from the guest", oldVersion)
		checkStatus(t, m)
	}); !ok {
		return
	}

	before := m.run("stat -c '%%n %%i %%Y %%Z' " + installedFiles)
	m.reboot()
	if ok := t.Run("second boot", func(t *testing.T) {
		checkAgent(t, m, oldVersion)
		checkNetwork(t, m)
		checkUsersOwn(t, m)
		if after := m.run("stat -c '%%n %%i %%Y %%Z' " + installedFiles); after != before {
			t.Errorf("files changed:\n%s\nwere:\n%s", after, before)
		}
		if began, boothook := m.began(service), m.began("cloud-init.service"); began > boothook {
			t.Errorf("the agent was started at %d us, after cloud-init at %d", began, boothook)
		}
		host.waitForPage(m.ctx, 8080, "hello from the guest", oldVersion)
	}); !ok {
		return
	}

	m.powerOff()
	m.powerOn(writeSeed(m, seed, newVersion))
	t.Run("upgraded seed", func(t *testing.T) {
		checkAgent(t, m, newVersion)
		checkKey(t, m, seed.Key)
		checkUsersOwn(t, m)
		host.waitForPage(m.ctx, 8080, "hello from the guest", newVersion)
	})

	t.Run("install over ssh", func(t *testing.T) {
		if out := m.install(oldVersion); !strings.Contains(out, "rum-guest-agent "+oldVersion) {
			t.Errorf("install said: %s", out)
		}
		checkKey(t, m, seed.Key)
		host.waitForPage(m.ctx, 8080, "hello from the guest", oldVersion)
		before := m.property(service, "MainPID")
		m.install(oldVersion)
		if after := m.property(service, "MainPID"); after != before {
			t.Error("the same agent once more restarted it")
		}
	})
}

// checkAgent wants the agent of that version to have come up, once, before anything else.
func checkAgent(t *testing.T, m *machine, version string) {
	t.Helper()
	if got := m.run("/usr/local/bin/rum-guest-agent --version"); !strings.HasSuffix(got, version) {
		t.Errorf("the agent is %s", got)
	}
	if state := m.property(service, "ActiveState"); state != "active" {
		t.Errorf("the agent is %s:\n%s", state, m.run("journalctl -u %s --no-pager || :", service))
		return
	}
	running := m.run("sha256sum </proc/$(systemctl show --value -p MainPID %s)/exe", service)
	if file := m.run("sha256sum </usr/local/bin/rum-guest-agent"); running != file {
		t.Error("the running agent is not the installed one")
	}
	if restarts := m.property(service, "NRestarts"); restarts != "0" {
		t.Errorf("systemd had to start it again %s times:\n%s", restarts, m.run("journalctl -u %s --no-pager || :", service))
	}
	agent, sysinit, multiUser := m.active(service), m.active("sysinit.target"), m.active("multi-user.target")
	t.Logf("after %d ms the agent, %d ms sysinit.target, %d ms multi-user.target", agent/1000, sysinit/1000, multiUser/1000)
	if agent > multiUser || agent > sysinit {
		t.Errorf("the agent became active after %d us, sysinit.target after %d, multi-user.target after %d", agent, sysinit, multiUser)
	}
	if warnings := m.run("journalctl -b -u %s --no-pager -p warning -q || :", service); warnings != "" {
		t.Errorf("warnings:\n%s", warnings)
	}
}

// checkStatus wants any user of the guest to see what became of its ports.
func checkStatus(t *testing.T, m *machine) {
	t.Helper()
	got := m.run("n=0; until setpriv --reuid=65534 --regid=65534 --clear-groups rum-guest-agent status | grep 8080/tcp || [ $n = 50 ]; do n=$((n+1)); sleep 0.2; done")
	if !strings.HasSuffix(got, "-> localhost:8080 on the host") {
		t.Errorf("rum-guest-agent status says: %q\n%s", got, m.run("ls -la /run/rum-guest-agent; rum-guest-agent status || :"))
	}
}

func checkKey(t *testing.T, m *machine, key keyfile.Key) {
	t.Helper()
	if got := m.run("stat -c '%%a %%U:%%G' /etc/rum-agent/key"); got != "600 root:root" {
		t.Errorf("key file: %s", got)
	}
	if m.run("cat /etc/rum-agent/key") != strings.TrimSpace(string(key.Encode())) {
		t.Error("the guest has another key")
	}
}

// checkNetwork wants an address on both interfaces and a default route by the first alone.
func checkNetwork(t *testing.T, m *machine) {
	t.Helper()
	type link struct {
		Name  string `json:"ifname"`
		MAC   string `json:"address"`
		Addrs []struct {
			Family string `json:"family"`
			Local  string `json:"local"`
		} `json:"addr_info"`
	}
	var links []link
	if err := json.Unmarshal([]byte(m.run("ip -j address")), &links); err != nil {
		t.Fatal(err)
	}
	names := make(map[string]string)
	for mac, prefix := range map[string]string{natMAC: "10.0.2.", hostOnlyMAC: "192.168.50."} {
		found := false
		for _, l := range links {
			for _, a := range l.Addrs {
				if l.MAC == mac && a.Family == "inet" && strings.HasPrefix(a.Local, prefix) {
					found, names[mac] = true, l.Name
				}
			}
		}
		if !found {
			t.Errorf("%s has no address in %s0/24: %+v", mac, prefix, links)
		}
	}
	// The agent may have to find out that cloud-init has written the file anew.
	const host = "192.168.50.1 host.rum.internal"
	if got := m.run("for i in $(seq 60); do grep -x '%s' /etc/hosts && break; sleep 1; done", host); got != host {
		t.Errorf("/etc/hosts does not name the host:\n%s", m.run("cat /etc/hosts; journalctl -u %s --no-pager || :", service))
	}
	for _, family := range []string{"-4", "-6"} {
		var routes []struct {
			Dev string `json:"dev"`
		}
		if err := json.Unmarshal([]byte(m.run("ip -j %s route show default", family)), &routes); err != nil {
			t.Fatal(err)
		}
		if len(routes) != 1 || routes[0].Dev != names[natMAC] {
			t.Errorf("ip %s: default routes %+v, want one by %s", family, routes, names[natMAC])
		}
	}
}

// checkUsersOwn wants everything the user asked for to have been done, once.
func checkUsersOwn(t *testing.T, m *machine) {
	t.Helper()
	for command, want := range map[string]string{
		"cat /var/runcmd":                       "ran",
		"cat /srv/page":                         "hello from the guest",
		"systemctl is-active web.service":       "active",
		"hostname":                              "dev-box",
		"cat /home/debian/.ssh/authorized_keys": m.publicKey,
		"cat /var/bootcmd":                      "active",
	} {
		if got := m.run("%s || :", command); !strings.HasSuffix(got, want) {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
}

// checkCloudInit wants cloud-init to have nothing to complain about.
func checkCloudInit(t *testing.T, m *machine) {
	t.Helper()
	if status := m.run("cloud-init status --long || :"); !strings.Contains(status, "status: done") {
		t.Errorf("cloud-init: %s", status)
	}
	if log := m.run("grep -E 'WARNING|ERROR|CRITICAL|Traceback' /var/log/cloud-init.log || :"); log != "" {
		t.Errorf("cloud-init's log:\n%s", log)
	}
	checkSchema(t, m)
	if failed := m.run("systemctl --failed --plain --no-legend"); failed != "" {
		t.Errorf("failed units:\n%s", failed)
	}
}

// spoilUserData puts user-data that breaks the schema into what cloud-init keeps of its datasource.
const spoilUserData = `
from cloudinit.sources import pkl_load, pkl_store
kept = "/var/lib/cloud/instance/obj.pkl"
source = pkl_load(kept)
source.userdata_raw, source.userdata = b"#cloud-config\nruncmd: 5\n", None
assert pkl_store(source, kept)
`

// checkSchema wants cloud-init to find the documents valid as it has them, and it to look.
func checkSchema(t *testing.T, m *machine) {
	t.Helper()
	const system = "cloud-init schema --system 2>&1 || :"
	if out := m.run(system); !strings.HasPrefix(out, "Valid cloud-config") {
		t.Errorf("cloud-init schema --system: %s", out)
	}
	if config := m.run("cat /var/lib/cloud/instance/vendor-cloud-config.txt"); config != "" {
		t.Errorf("cloud-init took a cloud-config from the vendor-data:\n%s", config)
	}
	m.run("cd /var/lib/cloud/instance && cp obj.pkl /run/obj.pkl && python3 -c '%s'", spoilUserData)
	if out := m.run(system); !strings.Contains(out, "runcmd: 5 is not of type 'array'") {
		t.Errorf("cloud-init schema --system of broken user-data: %s", out)
	}
	m.run("mv /run/obj.pkl /var/lib/cloud/instance/obj.pkl && " + system)
}

func parseMAC(t *testing.T, s string) net.HardwareAddr {
	t.Helper()
	mac, err := net.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return mac
}
