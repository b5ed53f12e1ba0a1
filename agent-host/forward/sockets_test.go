package forward_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// toSocket forwards every port to one socket.
func toSocket(path string) policy.Rules {
	return func(string, portlist.Listener) policy.Decision {
		return policy.Decision{Rule: "rum.toml:1", HostSocket: path}
	}
}

// fromSocket forwards one socket of the guest.
func fromSocket(path string, d policy.Decision) policy.Sockets {
	return func(string) []policy.GuestSocket { return []policy.GuestSocket{{Path: path, Decision: d}} }
}

func dialSocket(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialTimeout("unix", path, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.UnixConn)
}

func TestAPortOfTheGuestIsASocketThatOnlyTheUserMayOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	table := newTable(t, forward.Config{Rules: toSocket(path)})
	vm := table.Add("dev")
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	vm.Announce(listeners(8080, "0.0.0.0"))
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Fatalf("%v, %v; want a socket of mode 0600", info, err)
	}
	c := dialSocket(t, path)
	roundTrip(t, c)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Errorf("after the half-close: %q, %v", rest, err)
	}
	f := one(t, vm)
	if f.State != status.Active || !slices.Equal(f.Host, []string{path}) || f.Port != 8080 || f.Proto != "tcp" {
		t.Errorf("%+v", f)
	}
	eventually(t, vm, "counted", func(all []status.Forward) bool {
		return all[0].ConnectionsActive == 0 && all[0].ConnectionsTotal == 1 && all[0].BytesIn == 5 && all[0].BytesOut == 5
	})
	vm.Announce(nil)
	if _, err := os.Lstat(path); err == nil {
		t.Error("the file is left although the forward has gone")
	}
}

func TestASocketOfTheGuestIsReachedFromAPortAndASocket(t *testing.T) {
	asked := make(chan wire.Target, 1)
	link := linkTo(echo(t, "127.0.0.2:0"))
	open := link.Open
	link.Open = func(ctx context.Context, target wire.Target, early []byte) (relay.Conn, string, error) {
		asked <- target
		return open(ctx, target, early)
	}
	port, path := ownnet.FreePort(t), filepath.Join(t.TempDir(), "app.sock")
	table := newTable(t, forward.Config{Sockets: fromSocket("/run/app.sock", policy.Decision{
		Rule: "rum.toml:1", Host: []netip.AddrPort{netip.MustParseAddrPort(addr("127.0.0.1", port))},
	})})
	vm := table.Add("dev")
	vm.SetLink(link)
	vm.SetBridge(bridge, nil)
	vm.Announce(nil)
	wantTarget := func() {
		t.Helper()
		if got := <-asked; got.Network != "unix" || got.Path != "/run/app.sock" || len(got.Addrs) > 0 {
			t.Errorf("asked for %+v", got)
		}
	}
	roundTrip(t, dial(t, addr("127.0.0.1", port)))
	wantTarget()
	if f := one(t, vm); f.Proto != "unix" || f.Port != 0 || fmt.Sprint(f.Guest, f.Host) != fmt.Sprintf("[/run/app.sock] [%s]", addr("127.0.0.1", port)) || f.Path != "vsock" {
		t.Errorf("%+v", f)
	}

	table.SetRules(nil, nil, fromSocket("/run/app.sock", policy.Decision{Rule: "rum.toml:1", HostSocket: path}), nil)
	roundTrip(t, dialSocket(t, path))
	wantTarget()
	wantClosed(t, addr("127.0.0.1", port))

	// The bridge leads to addresses, not to sockets.
	vm.SetLink(nil)
	if rest, err := io.ReadAll(dialSocket(t, path)); err != nil || len(rest) > 0 {
		t.Errorf("without a link: %q, %v", rest, err)
	}
	eventually(t, vm, "explained", func(all []status.Forward) bool {
		return strings.Contains(all[0].LastError, "bridge") && all[0].Path == ""
	})
	if text := one(t, vm).LastError; !strings.Contains(text, "reads as an end; 1 of its clients") {
		t.Errorf("a client read an end although nothing was complete, and of that is said: %s", text)
	}
}

func TestASocketLeftBehindIsReplacedAndALivingOneIsAClaim(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	living, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	living.SetUnlinkOnClose(false)
	var clock clock
	vm := newTable(t, forward.Config{Now: clock.now, Rules: toSocket(path)}).Add("dev")
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	vm.Announce(listeners(8080, "0.0.0.0"))
	me := fmt.Sprintf("[%d]", os.Getpid())
	eventually(t, vm, "a claim that names the holder", func(all []status.Forward) bool {
		return all[0].State == status.Claim && strings.Contains(all[0].Reason, path) && strings.Contains(all[0].Reason, me)
	})
	// Looking whether it lives does not disturb who serves it.
	_ = living.SetDeadline(time.Now().Add(500 * time.Millisecond))
	if c, err := living.Accept(); err == nil {
		c.Close()
		t.Error("the holder got a connection that nobody made")
	}
	_ = living.Close()
	clock.settle(t, vm, path)
	eventually(t, vm, "taken over", inState(status.Active))
	roundTrip(t, dialSocket(t, path))
}

func TestWhatIsNoSocketIsNotRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	vm := newTable(t, forward.Config{Rules: toSocket(path)}).Add("dev")
	vm.Announce(listeners(8080, "0.0.0.0"))
	if f := one(t, vm); f.State != status.Claim || !strings.Contains(f.Reason, path) {
		t.Errorf("%+v", f)
	}
	vm.Close()
	if text, err := os.ReadFile(path); err != nil || string(text) != "mine" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestAFileThatTookThePlaceOfASocketIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	vm := newTable(t, forward.Config{Rules: toSocket(path)}).Add("dev")
	vm.Announce(listeners(8080, "0.0.0.0"))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	vm.Announce(nil)
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("a file that is not the forward's was removed: %v", err)
	}
}

func TestTwoVMsThatWantOneSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	table := newTable(t, forward.Config{Rules: toSocket(path)})
	first, second := table.Add("first"), table.Add("second")
	first.Announce(listeners(8080, "0.0.0.0"))
	second.Announce(listeners(8080, "0.0.0.0"))
	if f := one(t, second); f.State != status.Claim || f.Reason != path+" is held by VM first" {
		t.Errorf("%+v", f)
	}
	first.Close()
	eventually(t, second, "moved on", inState(status.Active))
}

func TestASocketThatCannotBeMadeSaysWhy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(file, "app.sock"):                 unix.ENOTDIR.Error(),
		"/" + strings.Repeat("x", wire.MaxSocketPath+1): unix.EINVAL.Error(),
	} {
		vm := newTable(t, forward.Config{Rules: toSocket(path)}).Add("dev")
		vm.Announce(listeners(8080, "0.0.0.0"))
		if f := one(t, vm); f.State == status.Active || !strings.Contains(f.Reason, want) {
			t.Errorf("%+v", f)
		}
	}
}

func TestASocketWhoseFileIsRemovedIsMadeAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	vm := newTable(t, forward.Config{Rules: toSocket(path)}).Add("dev")
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	vm.Announce(listeners(8080, "0.0.0.0"))
	running := dialSocket(t, path)
	roundTrip(t, running)

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	eventually(t, vm, "the socket is there again", func([]status.Forward) bool {
		_, err := os.Stat(path)
		return err == nil
	})
	eventually(t, vm, "and active", inState(status.Active))
	roundTrip(t, dialSocket(t, path))
	roundTrip(t, running)

	// What another program puts there stays.
	if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("mine"), 0o600)); err != nil {
		t.Fatal(err)
	}
	eventually(t, vm, "not active", func(all []status.Forward) bool { return all[0].State == status.Claim && all[0].Reason != "" })
	if text, err := os.ReadFile(path); string(text) != "mine" {
		t.Errorf("%q, %v", text, err)
	}
}
