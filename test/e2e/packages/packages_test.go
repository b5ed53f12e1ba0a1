//go:build e2e

package packages

import (
	"context"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/test/debian"
	"github.com/rum-vm/rum-agent/test/vm"
)

// system is a host whose user ann may have services without a login.
var system = debian.System{
	Packages: []string{"dbus-user-session", "libpam-systemd", "openssh-client", "openssh-server", "sudo"},
	Setup: `
useradd --create-home --shell /bin/sh ann
echo 'ann ALL=(root) NOPASSWD: /usr/sbin/ip netns exec far *' >/etc/sudoers.d/ann
mkdir -m 700 /home/ann/.ssh
ssh-keygen -q -t ed25519 -N '' -f /home/ann/.ssh/id_ed25519
cp /home/ann/.ssh/id_ed25519.pub /home/ann/.ssh/authorized_keys
printf 'Host far\n HostName 127.0.0.1\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n' >/home/ann/.ssh/config
mkdir -p /var/lib/systemd/linger /home/ann/.config/rum-agent /cargo
: >/var/lib/systemd/linger/ann
echo 'RUM_HOST_FLAGS="--vm dev=unix:/run/guest.sock"' >/home/ann/.config/rum-agent/environment
chown -R ann: /home/ann
echo '/dev/vdb /cargo ext4 ro 0 0' >>/etc/fstab
`,
	Size: 900,
}

// prelude is what the commands of the test have in common.
const prelude = `
set -eu
as_ann() { runuser -u ann -- env XDG_RUNTIME_DIR=/run/user/$(id -u ann) "$@"; }
files() { find / -xdev \( -path /proc -o -path /tmp -o -path /run -o -path /var/log -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/lib/systemd \) -prune -o ! -type d -print | grep -vE '^/etc/(group|gshadow)-?$' | sort; }
`

// asSystem is for what asks the system's agent.
const asSystem = `host() { rum-host-agent "$@" --socket /run/rum-host-agent.sock 2>&1; }
`

func TestAUsersAgentIsUpgradedUnderClientsAndPurged(t *testing.T) {
	image, disk := prepare(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	machine := start(ctx, t, image, disk)
	run := func(what, command string) string {
		t.Helper()
		began := time.Now()
		out, err := machine.Run(ctx, prelude+command)
		if err != nil {
			log, _ := machine.Run(ctx, "journalctl --no-pager -n 60; cat /tmp/traffic")
			t.Fatalf("%s: %v\n%s\n%s", what, err, out, log)
		}
		t.Logf("%s (%v)\n%s", what, time.Since(began).Round(100*time.Millisecond), strings.TrimSpace(out))
		return out
	}

	run("install", `files >/tmp/before; dpkg -i /cargo/0.1.0/*.deb`)
	run("a guest that listens on port 9000", `
ip netns add guest; ip netns exec guest ip link set lo up
ip netns exec guest rum-guest-agent --hosts none --listen unix:/run/guest.sock >/tmp/guest 2>&1 &
ip netns exec guest /cargo/traffic serve :9000 >/tmp/service 2>&1 & echo $! >/tmp/service.pid
until [ -S /run/guest.sock ]; do sleep 0.1; done
chown ann /run/guest.sock`)
	run("the user's agent", `
until [ -S /run/user/$(id -u ann)/systemd/private ]; do sleep 0.1; done
as_ann systemctl --user enable --now rum-host-agent
as_ann rum-host-agent wait 9000 --timeout 60s
as_ann rum-host-agent status
as_ann rum-host-agent keys new other
as_ann systemctl --user reload rum-host-agent
as_ann systemctl --user stop rum-host-agent.service
as_ann rum-host-agent status | grep '^dev ' # whose socket starts it
as_ann systemctl --user is-active rum-host-agent.service
as_ann rum-host-agent wait 9000 --timeout 60s
as_ann systemctl --user show -p NFileDescriptorStore -p StatusText -p ActiveState rum-host-agent`)
	run("its log of a VM, in the journal", `
as_ann journalctl --user -u rum-host-agent VM=dev PORT=9000 -o cat --no-pager | grep '^port open vm=dev port=9000 '
as_ann journalctl --user -u rum-host-agent VM=dev -p info -o json --no-pager | grep -o '"SYSLOG_IDENTIFIER":"rum-host-agent"' | sort -u | grep .
! as_ann journalctl --user -u rum-host-agent VM=other -o cat --no-pager -q | grep .`)
	run("a hundred clients", `/cargo/traffic ask 127.0.0.1:9000 100 >/tmp/traffic 2>&1 & echo $! >/tmp/traffic.pid; sleep 2`)
	said := run("upgrade", `dpkg -i /cargo/0.2.0/*.deb
as_ann systemctl --user daemon-reload
as_ann systemctl --user restart rum-host-agent
as_ann rum-host-agent wait 9000 --timeout 60s
as_ann rum-host-agent status --json | tr , '\n' | grep -m1 '"version": *"v0.2.0"'`)
	if !strings.Contains(said, "systemctl --user restart rum-host-agent") {
		t.Error("the upgrade does not say how users restart their agents")
	}
	run("crash", `
was=$(as_ann systemctl --user show -P MainPID rum-host-agent)
kill -9 "$was"
until now=$(as_ann systemctl --user show -P MainPID rum-host-agent); [ "$now" != 0 ] && [ "$now" != "$was" ]; do sleep 0.1; done
as_ann rum-host-agent wait 9000 --timeout 60s`)
	fared := run("the clients", `kill $(cat /tmp/traffic.pid); while kill -0 $(cat /tmp/traffic.pid) 2>/dev/null; do sleep 0.1; done; cat /tmp/traffic`)
	if !strings.Contains(fared, " refused 0 ") {
		t.Errorf("clients: %s", fared)
	}
	run("the store lets go of a port that closes", `
count() { as_ann systemctl --user show -P NFileDescriptorStore rum-host-agent; }
was=$(count)
kill $(cat /tmp/service.pid)
until [ $(count) -eq $((was - 3)) ]; do sleep 0.1; done
echo "$was, then $(count)"`)
	run("what the user's agent starts is that user's ssh and sudo, and who holds a port has a name", `
ip netns add far; ip netns exec far ip link set lo up
ip netns exec far /cargo/traffic serve :9010 >/tmp/service 2>&1 &
ip netns exec far /cargo/traffic serve :9011 >/tmp/service 2>&1 &
as_ann /cargo/traffic serve 127.0.0.1:9011 >/tmp/holder 2>&1 & echo $! >/tmp/holder.pid
was=$(cat /home/ann/.config/rum-agent/environment)
far='sudo -n ip netns exec far rum-guest-agent --stdio'
for way in "$far" "sleep 16; ssh far $far"; do # a login may take its time
	echo "RUM_HOST_FLAGS='--vm \"far=exec:$way\"'" >/home/ann/.config/rum-agent/environment
	as_ann systemctl --user restart rum-host-agent
	as_ann rum-host-agent wait 9010 --timeout 120s
	as_ann rum-host-agent status far | grep '^far  connected'
	until as_ann rum-host-agent explain 9011 | grep '127.0.0.1:9011.* held by traffic\[[0-9]*\]'; do sleep 0.1; done
done
kill $(cat /tmp/holder.pid)
echo "$was" >/home/ann/.config/rum-agent/environment
as_ann systemctl --user restart rum-host-agent`)
	run("the system's agent and the guest's, as they are hardened", `
echo 'RUM_HOST_FLAGS="--vm box=unix:/run/guest.sock"' >/etc/default/rum-host-agent
systemctl start rum-host-agent
rum-host-agent status --socket /run/rum-host-agent.sock | grep 'box  connected' || { sleep 2; rum-host-agent status --socket /run/rum-host-agent.sock | grep 'box  connected'; }
rum-host-agent status --socket /run/rum-host-agent/status.sock | grep -c box
stat -c '%G %a' /run/rum-host-agent/status.sock
rum-host-agent keys new box
rum-host-agent keys export box | install -D -m 600 /dev/stdin /etc/rum-agent/key
systemctl start rum-guest-agent
systemctl is-active rum-host-agent rum-guest-agent
journalctl -u rum-host-agent VM=box -o cat --no-pager | grep '^linked to the guest agent vm=box '
journalctl -u rum-guest-agent PRIORITY=6 SYSLOG_IDENTIFIER=rum-guest-agent -o cat --no-pager | grep '^watching sockets '`)
	run("an upgrade restarts the system's agent", `
was=$(systemctl show -P MainPID rum-host-agent)
dpkg -i /cargo/0.2.0/rum-host-agent*.deb
now=$(systemctl show -P MainPID rum-host-agent)
[ "$now" != 0 ] && [ "$now" != "$was" ]`)
	said = run("a guest agent of a package, upgraded as one", `
ip netns add box; ip netns exec box ip link set lo up
ip netns exec box /cargo/traffic serve :9001 >/tmp/service 2>&1 &
mkdir -p /etc/systemd/system/rum-guest-agent.service.d
printf '[Service]\nNetworkNamespacePath=/run/netns/box\n' >/etc/systemd/system/rum-guest-agent.service.d/test.conf
echo 'RUM_GUEST_FLAGS="--listen unix:/run/box.sock --hosts none"' >/etc/default/rum-guest-agent
echo 'RUM_HOST_FLAGS="--vm box=unix:/run/box.sock"' >/etc/default/rum-host-agent
dpkg -i /cargo/0.1.0/rum-guest-agent*.deb
systemctl restart rum-host-agent
`+asSystem+`host wait 9001 --timeout 60s
host status box | tr -s ' \n' ' ' | grep -F 'upgrade its package in the VM, with: sudo apt-get install ./rum-guest-agent_*.deb'
if host upgrade; then exit 1; fi
/cargo/traffic ask 127.0.0.1:9001 1 >/tmp/one 2>&1 & one=$!
dpkg -i /cargo/0.2.0/rum-guest-agent*.deb
/cargo/traffic until 127.0.0.1:9001
kill $one; wait $one; cat /tmp/one`)
	if !strings.Contains(said, "belongs to the package rum-guest-agent; upgrade that in the VM, with: sudo apt-get install ./rum-guest-agent_*.deb") {
		t.Error("an agent of a package is not left to that")
	}
	said = run("a guest agent of no package, replaced by one that ends at once", asSystem+`
dpkg-deb -x /cargo/0.1.0/rum-guest-agent*.deb /tmp/older
cp /tmp/older/usr/bin/rum-guest-agent /usr/local/bin/
sed 's,=/usr/bin/rum-guest-agent,=/usr/local/bin/rum-guest-agent,' /usr/lib/systemd/system/rum-guest-agent.service >/etc/systemd/system/rum-guest-agent.service
systemctl daemon-reload
systemctl restart rum-guest-agent
until host status box | grep -q 'box  connected.*agent v0.1.0'; do sleep 0.1; done
if host upgrade box --agent /cargo/ends; then exit 1; fi
/usr/local/bin/rum-guest-agent --version
host logs box`)
	for _, want := range []string{"the new guest agent of box did not link in time, and v0.1.0 is back", "rum-guest-agent v0.1.0\n", "was not linked to in time"} {
		if !strings.Contains(said, want) {
			t.Errorf("nothing says %q", want)
		}
	}
	said = run("a guest agent of no package, upgraded over its link", asSystem+`
host upgrade
/cargo/traffic until 127.0.0.1:9001
host status box | grep 'auth psk.*agent v0.2.0'
/usr/local/bin/rum-guest-agent --version
systemctl is-active rum-guest-agent
rm -r /etc/systemd/system/rum-guest-agent.service /etc/systemd/system/rum-guest-agent.service.d /usr/local/bin/rum-guest-agent /var/lib/rum-agent/upgrade
systemctl daemon-reload`)
	for _, want := range []string{"box has v0.2.0 now, and had v0.1.0\n", "rum-guest-agent v0.2.0\n"} {
		if !strings.Contains(said, want) {
			t.Errorf("nothing says %q", want)
		}
	}
	said = run("purge", `dpkg --purge rum-host-agent rum-guest-agent; files >/tmp/after; echo left:; comm -13 /tmp/before /tmp/after
for c in /proc/[0-9]*/comm; do ! grep -qs '^rum-' "$c" || [ "$(cat "$c")" = rum-guest-agent ] || echo "$c still runs"; done`)
	_, left, _ := strings.Cut(said, "left:\n")
	for _, file := range strings.Split(strings.TrimSpace(left), "\n") {
		key := strings.HasPrefix(file, "/home/ann/.local/state/rum-agent/keys/") || strings.HasPrefix(file, "/var/lib/rum-agent/keys/") || file == "/etc/rum-agent/key"
		if !key {
			t.Errorf("a purge leaves %s", file)
		}
	}
	for _, keys := range []string{"/home/ann/.local/state/rum-agent/keys", "/var/lib/rum-agent/keys", "/etc/rum-agent/key"} {
		if !strings.Contains(said, keys+" stay") && !strings.Contains(said, keys+" stays") {
			t.Errorf("a purge does not say that %s stays", keys)
		}
	}
}

// prepare returns the system, and a disk with two versions of the packages.
func prepare(t *testing.T) (image debian.Image, disk string) {
	t.Helper()
	ctx, dir := t.Context(), t.TempDir()
	cargo := filepath.Join(dir, "cargo")
	traffic := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(cargo, "traffic"), "./traffic")
	traffic.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+runtime.GOARCH)
	ends := exec.CommandContext(ctx, "go", "build", "-ldflags", "-X main.version=v0.2.0", "-o", filepath.Join(cargo, "ends"), "../../../agent-guest/cmd/rum-guest-agent")
	ends.Env = traffic.Env
	disk = filepath.Join(dir, "cargo.img")
	for _, cmd := range []*exec.Cmd{
		exec.CommandContext(ctx, "sh", "../../packages.sh", "build", cargo), traffic, ends,
	} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
	}
	breakFunction(t, filepath.Join(cargo, "ends"), "main.serve")
	if out, err := exec.CommandContext(ctx, "mke2fs", "-q", "-t", "ext4", "-d", cargo, disk, "170M").CombinedOutput(); err != nil {
		t.Fatalf("make a disk: %v\n%s", err, out)
	}
	image, err := system.Fetch(ctx, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	return image, disk
}

// breakFunction has a program end with a signal where it calls a function, and leaves it one in every other respect.
func breakFunction(t *testing.T, file, function string) {
	t.Helper()
	program, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := program.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if section := int(s.Section); s.Name == function && section < len(program.Sections) {
			in := program.Sections[section]
			if _, err := f.WriteAt(make([]byte, 16), int64(s.Value-in.Addr+in.Offset)); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("%s has no function %s", file, function)
}

func start(ctx context.Context, t *testing.T, image debian.Image, disk string) *vm.VM {
	t.Helper()
	cfg := image.Config()
	cfg.CPUs, cfg.Memory = 2, 1024
	cfg.Disks = append(cfg.Disks, vm.Disk{Path: disk, ReadOnly: true})
	machine, err := vm.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(machine.Stop)
	if err := machine.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return machine
}
