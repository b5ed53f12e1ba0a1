package remote

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/rum-vm/rum-agent/agent-host/remote/protocol"
)

func TestVMsOfAHostThatWereNeverThereComeAtABoundedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a arrivals
		first := uuid.New()
		if !a.admit(first) {
			t.Fatal("the first VM is left out")
		}
		admitted := 1
		const minutes = 10
		for range minutes * 60 {
			for range 100 {
				if a.admit(uuid.New()) {
					admitted++
				}
			}
			if !a.admit(first) {
				t.Fatal("a VM that is known is left out")
			}
			time.Sleep(time.Second)
		}
		if most := protocol.MaxDomains + minutes*60/int(arrivalEvery/time.Second) + 1; admitted > most {
			t.Errorf("%d VMs in %d minutes, want at most %d", admitted, minutes, most)
		}
	})
}

func TestVMsThatComeAndGoForDaysAreNotAllRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a arrivals
		for range 3 * maxKnown {
			if !a.admit(uuid.New()) {
				time.Sleep(arrivalEvery)
			}
			if len(a.known) > maxKnown {
				t.Fatalf("%d VMs are remembered", len(a.known))
			}
		}
	})
}
