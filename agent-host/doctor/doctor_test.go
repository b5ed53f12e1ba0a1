package doctor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/doctor"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/test/rumproject"
)

func TestMain(m *testing.M) {
	ownnet.Enter()
	os.Exit(m.Run())
}

// alone is a user of whom nothing is known, without libvirt and without an agent.
func alone(t *testing.T) *doctor.Doctor {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "HOME"} {
		t.Setenv(name, dir)
	}
	t.Setenv("LIBVIRT_DEFAULT_URI", "none")
	return &doctor.Doctor{Socket: filepath.Join(dir, "rum-host-agent.sock"), Version: "v1", Root: dir}
}

// put writes a file below the doctor's root.
func put(t *testing.T, d *doctor.Doctor, path, text string) {
	t.Helper()
	path = filepath.Join(d.Root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// served has an agent answer with a status until the test ends.
func served(t *testing.T, d *doctor.Doctor, st status.Status) {
	t.Helper()
	l, err := control.Listen(t.Context(), d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		s := &control.Server{
			Status: func() status.Status { return st },
			VMs: func(q status.Query) iter.Seq[status.VM] {
				return slices.Values(slices.DeleteFunc(slices.Clone(st.VMs), func(vm status.VM) bool { return q.VM != "" && q.VM != vm.Name }))
			},
			Log: slog.New(slog.DiscardHandler),
		}
		if err := s.Serve(ctx, l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// want looks for a check of that name that is as ok says and has the words, and for its command.
func want(t *testing.T, d *doctor.Doctor, name string, ok bool, words, command string) {
	t.Helper()
	all := d.Examine(t.Context())
	for _, c := range all {
		if c.Name == name && c.OK == ok && strings.Contains(c.Text, words) && c.Command == command {
			return
		}
	}
	text, _ := json.MarshalIndent(all, "", "  ")
	t.Errorf("no %s (%v) with %q and %q in\n%s", name, ok, words, command, text)
}

func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

func TestWithoutAnAgentItSaysSoAndLooksAtTheRest(t *testing.T) {
	d := alone(t)
	want(t, d, "agent", false, "no agent runs", "rum-host-agent run")
	want(t, d, "loopback", true, "arrive", "")
	want(t, d, "configuration", true, "there is no rum.toml", "")
	want(t, d, "keys", true, "none of 0", "")
	d.VM = "dev"
	want(t, d, "dev", false, "libvirt cannot be asked", "rum-host-agent status")
}

func TestAModuleThatCouldBeLoadedIsToBeLoaded(t *testing.T) {
	d := alone(t)
	put(t, d, "proc/sys/kernel/osrelease", "6.1.0-9-amd64\n")
	want(t, d, "vsock", true, "has no vhost_vsock", "")
	put(t, d, "lib/modules/6.1.0-9-amd64/modules.dep", "kernel/drivers/vhost/vhost_vsock.ko.xz: kernel/drivers/vhost/vhost.ko.xz\n")
	want(t, d, "vsock", false, "is not loaded", "sudo modprobe vhost_vsock")
	put(t, d, "dev/vhost-vsock", "")
	want(t, d, "vsock", true, "/dev/vhost-vsock is there", "")
}

func TestSettingsOfVsockThatAreInTheWayAreFound(t *testing.T) {
	d := alone(t)
	want(t, d, "vsock settings", true, "none", "")
	put(t, d, "proc/sys/net/vsock/g2h_fallback", "1\n")
	want(t, d, "vsock settings", true, "none", "") // there is no hypervisor below
	put(t, d, "sys/module/vmw_vsock_virtio_transport/refcnt", "1")
	want(t, d, "vsock settings", false, "goes to the hypervisor below", "sudo sysctl -w net.vsock.g2h_fallback=0")
	put(t, d, "proc/sys/net/vsock/ns_mode", "local\n")
	want(t, d, "vsock settings", false, "does not see the VMs", "sudo sysctl -w net.vsock.child_ns_mode=global")
	put(t, d, "proc/sys/net/vsock/ns_mode", "global\n")
	put(t, d, "proc/sys/net/vsock/g2h_fallback", "0\n")
	want(t, d, "vsock settings", true, "none", "")
}

func TestAClockThatCannotBeRightIsFound(t *testing.T) {
	d := alone(t)
	d.Now = func() time.Time { return time.Date(1970, 1, 1, 0, 5, 0, 0, time.UTC) }
	want(t, d, "clock", false, "1970-01-01 00:05:00", "sudo timedatectl set-ntp true")
}

func TestAGuestWhoseClockIsOffIsFound(t *testing.T) {
	d := alone(t)
	vm := func(name string, ahead float64) status.VM {
		return status.VM{Name: name, State: status.Connected, Auth: "psk", ClockAhead: ahead}
	}
	paused := vm("paused", -3600)
	paused.State = status.Paused
	served(t, d, status.Status{Version: "v1", VMs: []status.VM{vm("behind", -4000.5), vm("ahead", 2.5), vm("good", -2), vm("mad", 9.2e9), paused}})
	command := func(vm string) string {
		return "rum-host-agent ssh " + vm + " --socket " + d.Socket + " -- sudo date -s @$(date +%s)"
	}
	if d.Socket == control.DefaultSocket() {
		command = func(vm string) string { return "rum-host-agent ssh " + vm + " -- sudo date -s @$(date +%s)" }
	}
	want(t, d, "behind clock", false, "1h6m40s behind this machine's", command("behind"))
	want(t, d, "ahead clock", false, "2s ahead of this machine's", command("ahead"))
	want(t, d, "mad clock", false, "106481 days ahead", command("mad"))
	for _, c := range d.Examine(t.Context()) {
		if c.Name == "good clock" || c.Name == "paused clock" {
			t.Errorf("%+v", c)
		}
	}
}

func TestLoopbackThatIsDownIsFound(t *testing.T) {
	d := alone(t)
	run(t, "ip", "link", "set", "lo", "down")
	t.Cleanup(func() { run(t, "ip", "link", "set", "lo", "up") })
	want(t, d, "loopback", false, "lo is down", "sudo ip link set lo up")
}

func TestAFirewallBetweenThisMachineAndItselfIsFound(t *testing.T) {
	d := alone(t)
	for _, verdict := range []string{"drop", "reject with tcp reset"} {
		run(t, "nft", "add table ip doctor; add chain ip doctor in { type filter hook input priority 0; }; add rule ip doctor in iif lo tcp dport 1-65535 "+verdict)
		want(t, d, "loopback", false, "a firewall keeps connections to 127.0.0.1", "sudo iptables -I INPUT -i lo -j ACCEPT")
		run(t, "nft", "delete table ip doctor")
	}
	want(t, d, "loopback", true, "arrive", "")
}

func TestAKeyThatOthersMayReadIsFound(t *testing.T) {
	d := alone(t)
	store, err := keys.Default()
	if err != nil {
		t.Fatal(err)
	}
	if err := store.New("dev", ""); err != nil {
		t.Fatal(err)
	}
	want(t, d, "keys", true, "none of 1", "")
	files, err := filepath.Glob(filepath.Join(store.Dir, "dev*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v %v", files, err)
	}
	if err := os.Chmod(files[0], 0o644); err != nil {
		t.Fatal(err)
	}
	want(t, d, "keys", false, "the key of dev", "rum-host-agent keys rotate dev")
	d.VM = "other"
	want(t, d, "keys", true, "none of 1", "")
}

func TestAMistakeInRumTomlIsFoundWithoutAnAgent(t *testing.T) {
	d := alone(t)
	put(t, d, "rum/rum.toml", "[[ports]]\nguest = \"x\"\n")
	put(t, d, "rum-agent/rum.toml", "[[ports]]\nguest = \"x\"\n")
	put(t, d, "rum.toml", "[[ports]]\nguest = \"x\"\n")
	for _, c := range d.Examine(t.Context()) {
		if c.Name == "configuration" && !c.OK && strings.Contains(c.Text, "rum.toml:2") {
			return
		}
	}
	t.Errorf("%+v", d.Examine(t.Context()))
}

func TestAProgramThatHasAPortOfARuleIsFoundWithoutAnAgent(t *testing.T) {
	d := alone(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken, free := l.Addr().(*net.TCPAddr).Port, ownnet.FreePort(t)
	put(t, d, "rum-agent/rum.toml", fmt.Sprintf("[[ports]]\nguest = 80\nhost = %d\n\n[[ports]]\nguest = 81\nhost = %d\n", taken, free))
	want(t, d, "configuration", false, fmt.Sprintf("127.0.0.1:%d, which the rule at", taken), "")
	want(t, d, "configuration", true, "rum.toml is good", "")
	for _, c := range d.Examine(t.Context()) {
		if !c.OK && strings.Contains(c.Text, strconv.Itoa(int(free))) {
			t.Errorf("nobody has it: %+v", c)
		}
	}
}

func TestAProgramThatHasAPortOfARangeOrOfAProjectIsFound(t *testing.T) {
	d := alone(t)
	dual, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer dual.Close()
	inRange := dual.Addr().(*net.TCPAddr).Port
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	ofProject := u.LocalAddr().(*net.UDPAddr).Port
	put(t, d, "rum-agent/rum.toml", fmt.Sprintf("[[forward]]\nguest = \"%d-%d\"\n\n[[forward]]\nguest = \"1-65535\"\n", inRange-1, inRange+1))
	rumproject.New(t, filepath.Join(os.Getenv("XDG_DATA_HOME"), "rum"), "shop.rum.toml", fmt.Sprintf("[[forward]]\nguest = 53\nhost = %d\nproto = \"udp\"\n", ofProject))
	want(t, d, "configuration", false, fmt.Sprintf("127.0.0.1:%d, which the rule at rum.toml:1", inRange), "")
	want(t, d, "configuration", false, fmt.Sprintf("127.0.0.1:%d, which the rule at ", ofProject), "")
	taken := 0
	for _, c := range d.Examine(t.Context()) {
		if strings.Contains(c.Text, "is held by") {
			taken++
		}
	}
	if taken != 2 {
		t.Errorf("%d ports are told of, and 2 are taken: nobody means each of 65535", taken)
	}
}

func TestPortsOfManyProgramsAreCounted(t *testing.T) {
	d := alone(t)
	rules := ""
	for range 13 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		rules += fmt.Sprintf("[[forward]]\nguest = %d\n", l.Addr().(*net.TCPAddr).Port)
	}
	put(t, d, "rum-agent/rum.toml", rules)
	want(t, d, "configuration", false, "3 more host ports that rules want are held", "ss -lntup")
}

func TestWhatTheAgentKnowsOfItselfIsPassedOn(t *testing.T) {
	d := alone(t)
	served(t, d, status.Status{
		Version: "v0.9", PID: 77, Warning: "descriptors are spent", Config: status.Config{File: "/r.toml", Error: "/r.toml:3: bad"},
		Discovery: []status.Discovery{{Source: "qemu+unix:///system?socket=/nowhere", Error: "it is down"}},
		Page:      &status.Page{State: status.Claim, Reason: "127.0.0.1:7070 is held by web[12]"},
		Refused:   []status.Refused{{Path: "/w/x", Reason: "it is another user's", Remedy: "remove it"}},
	})
	want(t, d, "agent", false, "is v0.9, and this program v1", "kill 77 && rum-host-agent run")
	want(t, d, "agent", false, "descriptors are spent", "")
	want(t, d, "agent", false, "it is down", "")
	want(t, d, "page", false, "not served: 127.0.0.1:7070 is held by web[12]", "rum-host-agent run --http localhost:7071")
	want(t, d, "configuration", false, "/r.toml:3: bad", "")
	want(t, d, "configuration", false, "/w/x: it is another user's", "")
	want(t, d, "libvirt", false, "/nowhere", "sudo systemctl start libvirtd.socket")
}

func TestVMsAndTheirPortsAreExplained(t *testing.T) {
	d := alone(t)
	now := time.Now()
	vm := func(name, state string, forwards ...status.Forward) status.VM {
		return status.VM{Name: name, State: state, Endpoint: "unix:/g.sock", Auth: "none", Forwards: forwards}
	}
	forward := func(port uint16, state, reason string, host ...string) status.Forward {
		return status.Forward{Proto: "tcp", Port: port, State: state, Reason: reason, Guest: []string{"0.0.0.0:80"}, Host: host, Rule: "rum.toml:3"}
	}
	ofAnother := forward(70, status.Claim, "127.0.0.1:7000 is held by VM down", "127.0.0.1:7000")
	ofAnotherToo := forward(71, status.Claim, "127.0.0.1:7001 is held by VM down, for its port 9", "127.0.0.1:7001")
	down := vm("down", status.Down)
	down.Error, down.Remedy = "it does not answer", "install the guest agent with: rum-host-agent install down"
	old := vm("old", status.Connected)
	old.Warning = "the guest agent is older than this host agent, v1; replace it with a newer seed image, or with: rum-host-agent install old"
	failed := forward(90, status.Active, "", "127.0.0.1:90")
	failed.LastError, failed.LastErrorAt, failed.Path = "refused", &now, "unix"
	served(t, d, status.Status{Version: "v1", PID: 77, VMs: []status.VM{
		vm("dev", status.Connected, forward(8080, status.Claim, "127.0.0.1:8080 is held by nginx[5]", "127.0.0.1:8080"),
			forward(80, status.Denied, "not permitted", "127.0.0.1:80"), forward(22, status.Ignored, "by a rule"), failed, ofAnother, ofAnotherToo),
		down, old, vm("paused", status.Paused),
	}})
	want(t, d, "agent", true, "v1 runs, pid 77", "")
	want(t, d, "dev", true, "no key is shared", "")
	want(t, d, "dev 8080/tcp", false, "held by nginx[5]", "")
	want(t, d, "dev 70/tcp", false, "held by VM down", "rum-host-agent release 7000 --vm down")
	want(t, d, "dev 71/tcp", false, "held by VM down", "rum-host-agent release 7001 --vm down")
	want(t, d, "dev 80/tcp", false, "not permitted", "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=80")
	want(t, d, "dev 90/tcp", false, "refused", "")
	want(t, d, "down", false, "it does not answer", "rum-host-agent install down")
	want(t, d, "old", false, "is older than", "rum-host-agent install old")
	want(t, d, "paused", false, "may be paused", "virsh resume paused")
	for _, c := range d.Examine(t.Context()) {
		if strings.Contains(c.Name, "22/tcp") || strings.HasPrefix(c.Name, "vsock") || c.Name == "libvirt" {
			t.Errorf("what no VM asks for is looked at: %+v", c)
		}
	}
	d.VM = "old"
	for _, c := range d.Examine(t.Context()) {
		if strings.HasPrefix(c.Name, "dev") || c.Name == "down" {
			t.Errorf("another VM: %+v", c)
		}
	}
}

func TestALinkThatWasLostAndIsBackIsNoFailure(t *testing.T) {
	d := alone(t)
	lost := time.Now().Add(-time.Minute)
	f := status.Forward{Proto: "tcp", Port: 7000, State: status.Active, Guest: []string{"0.0.0.0:7000"}, Host: []string{"127.0.0.1:7000"}, Path: "unix",
		LastError: "link lost (EOF): connection reset by peer", LastErrorKind: status.ErrorCut, LastErrorAt: &lost}
	again := status.VM{Name: "again", State: status.Connected, Auth: "psk", Since: lost.Add(time.Second), Forwards: []status.Forward{f}}
	cut := again
	cut.Name, cut.Since = "cut", lost.Add(-time.Hour)
	served(t, d, status.Status{Version: "v1", VMs: []status.VM{again, cut}})
	want(t, d, "again", true, "ports that work, as far as the agent knows: 1", "")
	want(t, d, "cut 7000/tcp", false, "link lost", "rum-host-agent watch cut --since 10m")
}

func TestAnExaminationIsShownWithCommandsOnLinesOfTheirOwn(t *testing.T) {
	var b strings.Builder
	err := output.Checks(&b, []status.Check{
		{Name: "agent", OK: true, Text: "runs"},
		{Name: "vsock settings", Text: "a long text that does not fit into one line of so few columns", Remedy: "load it with: sudo modprobe a-module-with-a-very-long-name; and at each boot", Command: "sudo modprobe a-module-with-a-very-long-name"},
		{Name: "dev", Text: "it is off", Remedy: "start it"},
	}, true, output.Look{Width: 40})
	const shown = `✓  agent           runs
✗  vsock settings  a long text that does
                   not fit into one line
                   of so few columns
   to do: load it with:
       sudo modprobe a-module-with-a-very-long-name
   and at each boot
✗  dev             it is off
   to do: start it
`
	if err != nil || b.String() != shown {
		t.Errorf("%v\n%s", err, b.String())
	}
}
