package netns_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rum-vm/rum-agent/portwatch/netns"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

// asContainer makes the test binary a process that listens at the addresses it names.
const asContainer = "RUM_TEST_CONTAINER"

func TestMain(m *testing.M) {
	if listen, ok := os.LookupEnv(asContainer); ok {
		if err := contained(strings.Fields(listen)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	ownnet.Enter()
	goleak.VerifyTestMain(m)
}

// network is that of the bridge on which containers are said to be. Nothing goes there.
var network = []netip.Prefix{netip.MustParsePrefix("10.4.0.1/24")}

// container starts a process in a network namespace of its own, which has an address and
// listens.
func container(t *testing.T, addr string, listen ...string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--net", "sh", "-ec", `ip link set lo up; ip addr add "$1/32" dev lo; exec "$2"`, "sh", addr, self)
	cmd.Env = append(os.Environ(), asContainer+"="+strings.Join(listen, " "))
	running(t, cmd)
}

// running starts a program and waits until it says that it is open.
func running(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatalf("%v says %q, %v: run: make deps", cmd, line, err)
	}
}

func contained(listen []string) error {
	for _, addr := range listen {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		defer l.Close()
	}
	fmt.Println("open")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func find(t *testing.T, f *netns.Finder) (found []portlist.Listener, addrs []string) {
	t.Helper()
	found, whole := f.Find(network)
	if !whole {
		t.Error("not all could be read")
	}
	return found, addresses(found)
}

func addresses(found []portlist.Listener) (addrs []string) {
	for _, l := range found {
		addrs = append(addrs, l.Addr.String())
	}
	return addrs
}

// Whoever may do so in his container gives himself the address of another.
func TestAnAddressIsTheOldestNamespacesThatHasIt(t *testing.T) {
	container(t, "10.4.0.2", "10.4.0.2:80", "127.0.0.1:81")
	time.Sleep(20 * time.Millisecond) // two ticks of the clock by which processes are older
	container(t, "10.4.0.2", "10.4.0.2:80", "10.4.0.2:5432")
	container(t, "10.4.0.3", "0.0.0.0:80")
	f := &netns.Finder{Proc: "/proc", Root: t.TempDir()}
	if _, got := find(t, f); !slices.Equal(got, []string{"10.4.0.2:80", "10.4.0.3:80"}) {
		t.Errorf("found %v", got)
	}
}

// In a namespace of his own, whoever has no rights gives himself any address.
func TestNamespacesOfUsersWithoutRightsAreNotLookedInto(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a namespace of another user: needs root")
	}
	container(t, "10.4.0.2", "10.4.0.2:80")
	const nobody = "65534"
	running(t, exec.Command("setpriv", "--reuid", nobody, "--regid", nobody, "--clear-groups", "--bounding-set", "-all", "unshare", "--user", "--map-root-user", "--net",
		"sh", "-ec", `ip link set lo up; ip addr add 10.4.0.9/32 dev lo; busybox httpd -f -p 10.4.0.9:5432 -h / & server=$!
			for try in $(seq 500); do ! grep -q ':1538 .* 0A ' /proc/net/tcp || break; sleep 0.01; done; echo open; cat >/dev/null; kill $server`))
	f := &netns.Finder{Proc: "/proc", Root: t.TempDir()}
	if _, got := find(t, f); !slices.Equal(got, []string{"10.4.0.2:80"}) {
		t.Errorf("found %v", got)
	}
}

func TestANamespaceDoesNotTakeTheRoomOfOthers(t *testing.T) {
	var many []string
	for port := 2000; port < 2900; port++ {
		many = append(many, fmt.Sprintf("10.4.0.2:%d", port))
	}
	container(t, "10.4.0.2", many...)
	container(t, "10.4.0.3", "10.4.0.3:80", "10.4.0.3:81", "10.4.0.3:82")
	f := &netns.Finder{Proc: "/proc", Root: t.TempDir()}
	found, got := find(t, f)
	for _, addr := range []string{"10.4.0.3:80", "10.4.0.3:81", "10.4.0.3:82"} {
		if !slices.Contains(got, addr) {
			t.Errorf("%s is not found", addr)
		}
	}
	if len(found) != 512 {
		t.Errorf("%d listeners are found, want 512", len(found))
	}
}

// A failed look is none that has found nothing.
func TestWhatCannotBeReadIsAsItWas(t *testing.T) {
	container(t, "10.4.0.2", "10.4.0.2:80")
	f := &netns.Finder{Proc: "/proc", Root: t.TempDir()}
	_, before := find(t, f)
	f.Proc = filepath.Join(t.TempDir(), "gone")
	found, whole := f.Find(network)
	if got := addresses(found); whole || len(got) != 1 || !slices.Equal(got, before) {
		t.Errorf("found %v, all of it: %v; it was %v", got, whole, before)
	}
	f.Proc = "/proc"
	if _, got := find(t, f); !slices.Equal(got, before) {
		t.Errorf("afterwards %v", got)
	}
}
