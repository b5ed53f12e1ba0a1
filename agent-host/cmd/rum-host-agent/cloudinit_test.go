package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rum-vm/rum-agent/test/ownnet"
)

// TestCloudInitScripts runs the promises of the commands that install the guest agent; $AGENT is one.
func TestCloudInitScripts(t *testing.T) {
	agent := filepath.Join(t.TempDir(), "agent")
	build := exec.Command("go", "build", "-ldflags=-s -w -X main.version=v1.2.3", "-o", agent, "github.com/rum-vm/rum-agent/agent-guest/cmd/rum-guest-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "cloudinit"),
		Setup: func(env *testscript.Env) error {
			env.Vars = append(env.Vars, ownnet.Env)
			env.Setenv("GORACE", "atexit_sleep_ms=0") // the detector would sleep a second at each exit
			env.Setenv("AGENT", agent)
			env.Setenv("ARCH", runtime.GOARCH)
			env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, "state"))
			env.Setenv("PATH", filepath.Join(env.WorkDir, "bin")+":"+env.Getenv("PATH"))
			return os.MkdirAll(filepath.Join(env.WorkDir, "bin"), 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": code},
	})
}
