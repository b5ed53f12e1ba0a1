//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/test/vm"
)

// The guest and the host agent that all tests of this package share: a boot
// takes seconds, and an agent that serves one test after another is the real
// thing.
var (
	guest *vm.VM
	host  *hostAgent
)

func TestMain(m *testing.M) {
	code, err := testMain(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func testMain(m *testing.M) (code int, err error) {
	if err := vm.Require(); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "rum-e2e-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", dir, "../../agent-host/cmd/rum-host-agent", "../../agent-guest/cmd/rum-guest-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build the agents: %w\n%s", err, out)
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	guest, err = vm.Start(ctx, vm.Config{
		Guest: vm.Initramfs{Agent: filepath.Join(dir, "rum-guest-agent")},
	})
	if err != nil {
		return 1, err
	}
	defer guest.Stop()
	host, err = startHostAgent(dir, "--vm", "box=serial:"+guest.SerialSocket())
	if err != nil {
		return 1, err
	}
	defer func() {
		if stopErr := host.stop(); err == nil && stopErr != nil {
			err = stopErr
		}
		if code != 0 || err != nil {
			fmt.Printf("host agent:\n%s\nguest console:\n%s\n", host.logged(), guest.Console())
		}
	}()
	boot, cancelBoot := context.WithTimeout(ctx, 2*time.Minute)
	defer cancelBoot()
	if err := guest.Ready(boot); err != nil {
		return 1, err
	}
	return m.Run(), nil
}
