package hostagent_test

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

func TestGuestPortComesAndGoesOnTheHost(t *testing.T) {
	t.Parallel()
	a, g, port := startAgent(t), newGuest(t), echo(t)
	g.start()
	add(t, a, g.vm("dev"))
	within(t, a, patience, "linked", func(vms []status.VM) bool { return vms[0].State == status.Connected })

	g.announce(port)
	within(t, a, 300*time.Millisecond, "port open", active(0, 1))
	if err := roundTrip(port); err != nil {
		t.Error(err)
	}
	vm := a.Status().VMs[0]
	if vm.Auth != "none" || vm.AgentVersion != "guest-test" || vm.Generation != 2 || vm.LastSeen == nil || vm.Error != "" ||
		vm.Forwards[0].Path != "unix" || vm.Forwards[0].Port != port {
		t.Errorf("%+v", vm)
	}

	g.announce()
	within(t, a, time.Second, "port closed", func(vms []status.VM) bool { return len(vms[0].Forwards) == 0 })
	if err := roundTrip(port); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("after the end: %v", err)
	}
}

// The host's listener is there all the time: it resets while there is no agent,
// and never refuses.
func TestRestartedAgentIsBackWithinTwoSecondsOnTheSameListener(t *testing.T) {
	t.Parallel()
	a, g, port := startAgent(t), newGuest(t), echo(t)
	g.announce(port)
	g.start()
	add(t, a, g.vm("dev"))
	within(t, a, patience, "port open", active(0, 1))
	for range 3 {
		g.stop()
		within(t, a, patience, "loss noticed", func(vms []status.VM) bool { return vms[0].State != status.Connected })
		for range 20 {
			if err := roundTrip(port); err == nil || errors.Is(err, unix.ECONNREFUSED) {
				t.Fatalf("without an agent: %v", err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		g.start()
		within(t, a, 2*time.Second, "back", func(vms []status.VM) bool { return vms[0].State == status.Connected })
		if err := roundTrip(port); err != nil {
			t.Error(err)
		}
	}
}

func TestPortsOfAVMThatStaysAwayAreFreed(t *testing.T) {
	t.Parallel()
	a, g, port := startAgent(t), newGuest(t), echo(t)
	g.announce(port)
	g.start()
	add(t, a, g.vm("dev"))
	within(t, a, patience, "port open", active(0, 1))
	g.stop()
	within(t, a, 15*time.Second, "port freed", active(0, 0))
	g.start()
	within(t, a, patience, "port open again", active(0, 1))
}

func TestBridgeCarriesWhileTheAgentIsAway(t *testing.T) {
	t.Parallel()
	a, g, port := startAgent(t), newGuest(t), echo(t)
	g.announce(port)
	g.start()
	add(t, a, g.vm("dev"))
	a.SetBridge("dev", guestIP)
	within(t, a, patience, "port open", active(0, 1))
	g.stop()
	within(t, a, patience, "path is the bridge", func(vms []status.VM) bool { return vms[0].Forwards[0].Path == "bridge" })
	if err := roundTrip(port); err != nil {
		t.Error(err)
	}
	g.start()
	within(t, a, patience, "path is the unix socket again", func(vms []status.VM) bool { return vms[0].Forwards[0].Path == "unix" })
	if vm := a.Status().VMs[0]; vm.BridgeIP != "127.0.0.2" {
		t.Errorf("%+v", vm)
	}
}

func TestKeyIsProvedOrTheLinkRefused(t *testing.T) {
	t.Parallel()
	a, g := startAgent(t), newGuest(t)
	g.key = make([]byte, keyfile.Size)
	g.start()
	none, wrong, right := g.vm("none"), g.vm("wrong"), g.vm("right")
	wrong.Key = append([]byte{1}, g.key[1:]...)
	right.Key = g.key
	for _, vm := range []hostagent.VM{none, wrong, right} {
		add(t, a, vm)
	}
	within(t, a, patience, "right key linked, others told why", func(vms []status.VM) bool {
		return vms[0].State == status.Down && strings.Contains(vms[0].Error, "authentication failed") &&
			vms[1].State == status.Down && strings.Contains(vms[1].Error, "authentication failed") &&
			vms[2].State == status.Connected && vms[2].Auth == "psk"
	})
}

func TestGarbageInPlaceOfAGuestIsSaidAndSurvived(t *testing.T) {
	t.Parallel()
	a, g := startAgent(t), newGuest(t)
	l, err := net.Listen("unix", g.path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(strings.Repeat("SSH-2.0-garbage\r\n", 10)))
			c.Close()
		}
	})
	defer wg.Wait()
	add(t, a, g.vm("dev"))
	within(t, a, patience, "shown", func(vms []status.VM) bool { return vms[0].State == status.Down && vms[0].Error != "" })
	l.Close()
	g.start()
	within(t, a, patience, "linked to the real one", func(vms []status.VM) bool { return vms[0].State == status.Connected })
}

// A peer that shakes hands and hangs up is not a link, so it neither keeps the
// ports of the VM nor hides that something is wrong.
func TestGuestThatNeverSpeaksIsDown(t *testing.T) {
	t.Parallel()
	a, g := startAgent(t), newGuest(t)
	front := filepath.Join(t.TempDir(), "front")
	l, err := net.Listen("unix", front)
	if err != nil {
		t.Fatal(err)
	}
	g.start()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			back, err := net.Dial("unix", g.path)
			if err != nil {
				c.Close()
				continue
			}
			go func() { _, _ = io.Copy(back, c); back.Close() }()
			wg.Go(func() {
				// What the guest says is cut off after its part of the
				// handshake.
				_, _ = io.CopyN(c, back, 300)
				c.Close()
				back.Close()
			})
		}
	})
	defer func() { l.Close(); g.stop(); wg.Wait() }()
	add(t, a, hostagent.VM{Name: "dev", Endpoint: endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: front}})
	within(t, a, patience, "shown as down", func(vms []status.VM) bool { return vms[0].State == status.Down && vms[0].Error != "" })
}

// startTwo starts an agent and two guests with the same port, the first of which
// has it on the host.
func startTwo(t *testing.T) (a *hostagent.Agent, one, two *guest, port uint16) {
	t.Helper()
	a, one, two, port = startAgent(t), newGuest(t), newGuest(t), echo(t)
	for _, g := range []*guest{one, two} {
		g.announce(port)
		g.start()
	}
	add(t, a, one.vm("one"))
	within(t, a, patience, "first has the port", active(0, 1))
	add(t, a, two.vm("two"))
	return a, one, two, port
}

func TestVMsComeAndGo(t *testing.T) {
	t.Parallel()
	a, one, two, port := startTwo(t)
	if err := a.AddVM(two.vm("two")); !errors.Is(err, hostagent.ErrNameTaken) {
		t.Errorf("second of one name: %v", err)
	}
	within(t, a, patience, "second waits for it", func(vms []status.VM) bool {
		f := vms[1].Forwards
		return len(f) == 1 && f[0].State == status.Claim && strings.HasSuffix(f[0].Reason, "held by VM one")
	})

	a.RemoveVM("one")
	// At once, unless another test is between fork and exec with a copy of the
	// listener.
	within(t, a, time.Second, "second has the port", active(0, 1))
	if err := roundTrip(port); err != nil {
		t.Error(err)
	}
	add(t, a, one.vm("one"))
	within(t, a, patience, "the first waits now", func(vms []status.VM) bool {
		return len(vms[1].Forwards) == 1 && vms[1].Forwards[0].State == status.Claim
	})
	a.RemoveVM("nobody")
	a.SetBridge("nobody", guestIP)
}

func TestAgentEndsWhileGuestsCannotBeReached(t *testing.T) {
	t.Parallel()
	a := startAgent(t)
	g := newGuest(t)
	add(t, a, g.vm("absent"))
	add(t, a, hostagent.VM{Name: "mute", Endpoint: endpoint.Endpoint{Scheme: endpoint.SchemeExec, Command: "sleep 60"}})
	within(t, a, patience, "shown", func(vms []status.VM) bool {
		return vms[0].State == status.Down && vms[1].State == status.Connecting
	})
}
