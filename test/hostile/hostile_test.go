package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// binDir tells the tests, which run in a network of their own, where the agents are.
const binDir = "RUM_HOSTILE_BIN"

func TestMain(m *testing.M) {
	switch name := os.Getenv(role); name {
	case "":
		os.Exit(again())
	case "inside":
		if err := loopbackUp(); err != nil {
			fmt.Fprintln(os.Stderr, err, "\ninstall iproute2")
			os.Exit(1)
		}
		os.Exit(m.Run())
	default:
		if err := part(name, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "hostile:", err)
			os.Exit(1)
		}
	}
}

// again builds the agents as users have them, because the race detector takes memory,
// and runs the tests in a network of their own.
func again() int {
	dir, err := os.MkdirTemp("", "rum-hostile-bin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	for _, pkg := range []string{"agent-host/cmd/rum-host-agent", "agent-guest/cmd/rum-guest-agent"} {
		build := exec.Command("go", "build", "-o", filepath.Join(dir, filepath.Base(pkg)), "github.com/rum-vm/rum-agent/"+pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", pkg, err, out)
			return 1
		}
	}
	cmd := self(context.Background(), "inside", true, os.Args[1:]...)
	cmd.Env = append(cmd.Env, binDir+"="+dir)
	cmd.Stdout = os.Stdout
	if err := cmd.Run(); err != nil {
		return 1
	}
	return 0
}

// These are the short form of make hostile: memory, log lines and service, each for a
// second. Times are no matter of a test.

func TestNoModeOfAHostileGuestGrowsTheHostAgentOrHurtsAnHonestOne(t *testing.T) {
	short(t, "host agent")
}

func TestNoUserOfTheHostAndNoProgramGrowsTheGuestAgentOrHurtsAnHonestHost(t *testing.T) {
	short(t, "guest agent")
}

func short(t *testing.T, victim string) {
	for _, m := range modes() {
		if m.victim() != victim {
			continue
		}
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			r, err := measure(t.Context(), os.Getenv(binDir), m, true, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v", r)
			if m.local != nil {
				awaitNone(t, m.name)
			}
			if r.peak >= maxPeak {
				t.Errorf("the %s grew to %d MiB, at most %d are allowed", victim, r.peak, maxPeak)
			}
			if r.lines > maxLines {
				t.Errorf("%d lines in its log, at most %d are allowed", r.lines, maxLines)
			}
			if r.unserved > 0 {
				t.Errorf("the honest client went unserved %d times", r.unserved)
			}
		})
	}
}

// awaitNone waits until no program of a mode runs.
func awaitNone(t *testing.T, mode string) {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		all, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		left := 0
		for _, p := range all {
			if b, err := os.ReadFile(p); err == nil && strings.HasSuffix(string(b), "exe\x00"+mode+"\x00") {
				left++
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d programs go on after the end", left)
		}
	}
}

// TestManyVMsThatAnnounceTheSamePortsShareTheRoomFairly is the short form of twenty.
func TestManyVMsThatAnnounceTheSamePortsShareTheRoomFairly(t *testing.T) {
	r, err := measureCrowd(t.Context(), os.Getenv(binDir), 5, time.Second, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", r)
	if unfair := r.unfair(); len(unfair) > 0 {
		t.Errorf("%s", strings.Join(unfair, ", "))
	}
}
