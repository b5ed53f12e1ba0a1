package forward_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

// A service of the host that restarts is away for a moment. A guest that waits for
// its port does not get it, and one that asks just then does not either.
func TestAServiceOfTheHostThatRestartsKeepsItsPort(t *testing.T) {
	var clock clock
	table := newTable(t, forward.Config{Now: clock.now})
	vm := table.Add("dev")
	port := ownnet.FreePort(t)
	address := addr("127.0.0.1", port)
	restart := func() net.Listener {
		t.Helper()
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatalf("the service lost its port: %v", err)
		}
		return l
	}
	left := func(after string) {
		t.Helper()
		eventually(t, vm, "seen to be free", func(all []status.Forward) bool {
			return strings.HasPrefix(all[0].Reason, address+" was left by forward.test[") && strings.HasSuffix(all[0].Reason, after)
		})
	}
	held := func() {
		t.Helper()
		eventually(t, vm, "held", func(all []status.Forward) bool {
			return strings.HasPrefix(all[0].Reason, address+" is held by forward.test[")
		})
	}
	stays := func() {
		t.Helper()
		time.Sleep(500 * time.Millisecond) // a few looks at it
		if f := one(t, vm); f.State != status.Claim {
			t.Fatalf("%+v", f)
		}
	}
	service := restart()
	vm.Announce(listeners(port, "0.0.0.0"))
	held()

	service.Close()
	left("just now, and is bound 3s after that")
	vm.Announce(nil)
	vm.Announce(listeners(port, "0.0.0.0"))
	clock.pass(2 * time.Second)
	stays()
	service = restart()
	held()

	// It came back once and may do so again.
	service.Close()
	left("is bound 30s after that, because it came back before")
	clock.pass(28 * time.Second)
	stays()
	service = restart()
	held()

	clock.pass(10 * time.Minute)
	service.Close()
	left("just now, and is bound 3s after that")
	clock.pass(3 * time.Second)
	eventually(t, vm, "taken over", inState(status.Active))

	// What nobody of the host had of late is bound at once.
	vm.Announce(nil)
	vm.Announce(listeners(port, "0.0.0.0"))
	if f := one(t, vm); f.State != status.Active {
		t.Errorf("%+v", f)
	}
}

// While no VM wants an address nobody looks who has it. A guest must not gain by that:
// what it finds free then may have been left by a service that restarts just now.
func TestAGuestThatWasAwayWaitsForAServiceThatRestarts(t *testing.T) {
	var clock clock
	vm := newTable(t, forward.Config{Now: clock.now}).Add("dev")
	port := ownnet.FreePort(t)
	service, err := net.Listen("tcp", addr("127.0.0.1", port))
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	vm.Announce(listeners(port, "0.0.0.0"))
	eventually(t, vm, "a claim", inState(status.Claim))
	for _, away := range []time.Duration{31 * time.Second, time.Hour} {
		vm.Announce(nil)
		clock.pass(away)
		service.Close()
		vm.Announce(listeners(port, "0.0.0.0"))
		if f := one(t, vm); f.State != status.Claim {
			t.Errorf("after %v: %+v", away, f)
		}
		if service, err = net.Listen("tcp", addr("127.0.0.1", port)); err != nil {
			t.Fatalf("the service lost its port: %v", err)
		}
		eventually(t, vm, "held", func(all []status.Forward) bool {
			return strings.Contains(all[0].Reason, " is held by ")
		})
		clock.pass(10 * time.Minute) // it is settled
	}
	service.Close()
	eventually(t, vm, "seen to be free", func(all []status.Forward) bool {
		return strings.Contains(all[0].Reason, "is bound 3s after that")
	})
	clock.pass(3 * time.Second)
	eventually(t, vm, "taken over", inState(status.Active))
}
