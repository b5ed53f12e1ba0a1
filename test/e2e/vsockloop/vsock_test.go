//go:build e2e

// Package e2e runs the tests of package tunnel over AF_VSOCK, which is safe only
// inside a VM of our own: the test binary is taken into a small guest with the
// kernel's vsock loopback, and run there.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/test/vm"
)

// promises are the tests that speak of streams; those of endpoints, of the
// handshake and of garbage open unix sockets by themselves.
var promises = []string{
	"TestBytesArriveBothWays", "TestLargeTransferIsComplete", "TestHalfCloseReachesTheOtherEnd",
	"TestServerMayCloseFirstAndStillRead", "TestGuestResetArrivesAsReset", "TestClientResetArrivesAsReset",
	"TestResetAfterHalfCloseIsNoticedAtOnce", "TestRefusalIsAReset", "TestEarlyBytesTravelAlong",
	"TestCutLinkIsAReset", "TestACutLinkFreesWhatIsStalled", "TestAStalledReaderHoldsUpNobodyElse",
	"TestStreamIsANetConn", "TestCloseDeliversWhatWasWritten", "TestTheHostAlwaysHasTheWholeSet",
	"TestEveryKindOfEndpointKeepsEveryPromise",
	"TestDatagramsArriveWholeAndByTheirFlow", "TestAFloodOfDatagramsDoesNotStopTCP", "TestALinkHasFewDatagramStreams",
	"TestAStepOfTheClockResetsNobody", "TestAConnectionThatIsHandedOverHasItsEndsByItself",
	"TestAConnectionThatIsHandedOverOutlivesTheLinkAndNotTheServer",
}

func TestTheTunnelKeepsItsPromisesOverVsock(t *testing.T) {
	if err := vm.Require(); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "tunnel.test")
	build := exec.Command("go", "test", "-c", "-tags", "e2e", "-o", binary, "github.com/rum-vm/rum-agent/tunnel")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
	defer cancel()
	guest, err := vm.Start(ctx, vm.Config{Memory: 1024, Guest: vm.Initramfs{
		Files:   map[string]string{"/bin/tunnel.test": binary},
		Modules: []string{"vsock_loopback"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Stop()
	for _, name := range promises {
		t.Run(name, func(t *testing.T) {
			out, err := guest.Run(ctx, fmt.Sprintf("echo 8388608 >/proc/sys/net/core/rmem_max && cd /tmp && ulimit -n 16384 && RUM_TEST_OVER_VSOCK=1 /bin/tunnel.test -test.v -test.timeout 20m -test.run '^%s$/^(vsock|reused|)$'", name))
			if failed, ok := errors.AsType[*vm.ExitError](err); ok {
				t.Fatal(failed.Output)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out, "--- PASS: "+name) || strings.Contains(out, "--- SKIP") {
				t.Fatalf("did not run:\n%s", out)
			}
		})
	}
}
