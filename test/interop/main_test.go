package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rum-vm/rum-agent/test/ownnet"
)

// hostAgent is the host agent under test, built with the race detector.
var hostAgent string

func TestMain(m *testing.M) {
	ownnet.Enter()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if _, err := exec.LookPath("python3"); err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err, "\ninstall python3")
		return 1
	}
	dir, err := os.MkdirTemp("", "rum-interop")
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	// The machine's user may have rules, and a VM that is called as one of the tests.
	for _, name := range []string{"XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"} {
		if err := os.Setenv(name, dir); err != nil {
			fmt.Fprintln(os.Stderr, "interop:", err)
			return 1
		}
	}
	hostAgent = filepath.Join(dir, "rum-host-agent")
	build := exec.Command("go", "build", "-race", "-buildvcs=false", "-o", hostAgent, "github.com/rum-vm/rum-agent/agent-host/cmd/rum-host-agent")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "interop: build the host agent: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
