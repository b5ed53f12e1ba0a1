package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sync/errgroup"
)

// inside tells a test binary that it runs in namespaces of its own.
const inside = "RUM_TEST_INSIDE"

// bin holds the agents under test, built with the race detector.
var bin string

// The first thread stays in the tests' own namespace: it is what /proc/self is
// about, and goroutines that enter another namespace run on others.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if domains := os.Getenv(asRelay); domains != "" {
		if err := runRelay(domains); err != nil {
			os.Exit(fail(err))
		}
		os.Exit(0)
	}
	if os.Getenv(inside) == "" {
		os.Exit(again())
	}
	if err := exec.Command("ip", "link", "set", "lo", "up").Run(); err != nil {
		fmt.Fprintln(os.Stderr, "integration: ip link set lo up:", err, "\ninstall iproute2")
		os.Exit(1)
	}
	if addr := os.Getenv(asEcho); addr != "" {
		os.Exit(fail(echo(addr)))
	}
	bin = os.Getenv(inside)
	os.Exit(m.Run())
}

// again builds the agents and runs the test binary in a network namespace, and
// as root of a user namespace when it is not root already.
func again() int {
	dir, err := os.MkdirTemp("", "rum-integration")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	var builds errgroup.Group
	for _, pkg := range []string{"agent-guest/cmd/rum-guest-agent", "agent-host/cmd/rum-host-agent"} {
		builds.Go(func() error {
			// Without a version, which would be in transcripts.
			build := exec.Command("go", "build", "-race", "-buildvcs=false", "-o", filepath.Join(dir, filepath.Base(pkg)), "github.com/rum-vm/rum-agent/"+pkg)
			if out, err := build.CombinedOutput(); err != nil {
				return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
			}
			return nil
		})
	}
	if err := builds.Wait(); err != nil {
		return fail(err)
	}
	self, err := os.Executable()
	if err != nil {
		return fail(err)
	}
	args := []string{"--net"}
	if os.Geteuid() != 0 {
		args = append(args, "--user", "--map-root-user")
	}
	// With --kill-child nothing outlives an interrupted test.
	cmd := exec.Command("unshare", append(append(args, "--fork", "--kill-child", self), os.Args[1:]...)...)
	// The machine's user may have rules, and a VM that is called as one of the tests.
	cmd.Env = append(os.Environ(), inside+"="+dir, "XDG_STATE_HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir, "GORACE=atexit_sleep_ms=0")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return exit.ExitCode()
		}
		return fail(fmt.Errorf("%w\ninstall util-linux; user namespaces must be allowed, or run as root", err))
	}
	return 0
}

func fail(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "integration:", err)
	return 1
}
