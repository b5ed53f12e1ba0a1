//go:build e2e

package browser

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rum-vm/rum-agent/test/ownnet"
)

var update = flag.Bool("update", false, "take the pictures in docs/ anew")

// agent is the path of the host agent under test.
var agent string

func TestMain(m *testing.M) {
	ownnet.Enter()
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "rum-browser-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	agent = filepath.Join(dir, "rum-host-agent")
	build := exec.Command("go", "build", "-o", agent, "../../../agent-host/cmd/rum-host-agent")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the agent: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
