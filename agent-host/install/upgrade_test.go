package install

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// agentWith answers on a control socket that it has these VMs.
func agentWith(t *testing.T, vms ...status.VM) (socket string) {
	t.Helper()
	return upgradingWith(t, nil, func() []status.VM { return vms })
}

// upgradingWith is agentWith, where a function replaces agents.
func upgradingWith(t *testing.T, upgrade func(ctx context.Context, vm string) error, vms func() []status.VM) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := control.Listen(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		s := &control.Server{
			Status: func() status.Status { return status.Status{} },
			VMs: func(q status.Query) iter.Seq[status.VM] {
				return slices.Values(slices.DeleteFunc(slices.Clone(vms()), func(vm status.VM) bool { return q.VM != "" && q.VM != vm.Name }))
			},
			Upgrade: func(ctx context.Context, vm string, _ control.Upgrade, binary io.Reader) error {
				if _, err := io.Copy(io.Discard, binary); err != nil {
					return err
				}
				return upgrade(ctx, vm)
			},
			Log: slog.New(slog.DiscardHandler),
		}
		_ = s.Serve(ctx, l)
	})
	t.Cleanup(func() { cancel(); serving.Wait() })
	return socket
}

// interrupting cancels as soon as something is said.
type interrupting context.CancelFunc

func (i interrupting) Write(b []byte) (int, error) { i(); return len(b), nil }

func TestAnInterruptedUpgradeCountsTheAgentsThatItDidNotComeTo(t *testing.T) {
	newer := func(name string) status.VM {
		return status.VM{Name: name, State: status.Connected, AgentVersion: "v0.3.0"}
	}
	socket := agentWith(t, newer("a"), newer("b"), newer("c"))
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	err := (&Upgrade{VMs: []string{"a", "b", "c"}, Version: "v0.2.0"}).Run(ctx, &out, interrupting(cancel), socket)
	if err == nil || err.Error() != "3 of 3 guest agents were not upgraded" || out.Len() > 0 {
		t.Errorf("%v, %q", err, out.String())
	}
}

// TestAgentsAreReplacedSideBySideAndFourAtATime has five of them, one of which refuses, and one that is named twice.
func TestAgentsAreReplacedSideBySideAndFourAtATime(t *testing.T) {
	agent := filepath.Join(t.TempDir(), "rum-guest-agent")
	build := exec.Command("go", "build", "-ldflags=-X main.version=v0.3.0", "-o", agent, "github.com/rum-vm/rum-agent/agent-guest/cmd/rum-guest-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	names := []string{"a", "b", "c", "d", "e"}
	var mu sync.Mutex
	now := map[string]string{}
	begun, most, all := 0, 0, 0
	four := make(chan struct{})
	socket := upgradingWith(t, func(ctx context.Context, vm string) error {
		mu.Lock()
		begun, all = begun+1, all+1
		most = max(most, begun)
		if all == 4 {
			close(four)
		}
		mu.Unlock()
		select {
		case <-four:
		case <-ctx.Done():
		}
		mu.Lock()
		defer mu.Unlock()
		begun--
		if vm == "c" {
			return errors.New("the guest agent of c refuses: no room\nmake some")
		}
		now[vm] = "v0.3.0"
		return nil
	}, func() (vms []status.VM) {
		mu.Lock()
		defer mu.Unlock()
		for _, name := range names {
			vms = append(vms, status.VM{Name: name, State: status.Connected, AgentVersion: cmp.Or(now[name], "v0.2.0")})
		}
		return vms
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var stdout, stderr bytes.Buffer
	err := (&Upgrade{VMs: append(names, "a"), Version: "v0.3.0", Files: []string{agent}}).Run(ctx, &stdout, &stderr, socket)
	if err == nil || err.Error() != "1 of 5 guest agents were not upgraded" {
		t.Errorf("%v\n%s", err, stderr.String())
	}
	if most != 4 || all != 5 {
		t.Errorf("%d agents were replaced, %d of them at a time", all, most)
	}
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	slices.Sort(lines)
	want := []string{}
	for _, name := range []string{"a", "b", "d", "e"} {
		want = append(want, name+" has v0.3.0 now, and had v0.2.0")
		if n := strings.Count(stderr.String(), name+": replaced; waiting until it is linked\n"); n != 1 {
			t.Errorf("of %s it is said %d times that it was replaced", name, n)
		}
	}
	if !slices.Equal(lines, want) {
		t.Errorf("it prints\n%s", stdout.String())
	}
	if !strings.Contains(stderr.String(), "rum-host-agent: the guest agent of c refuses: no room\nmake some\n") {
		t.Errorf("it says\n%s", stderr.String())
	}
	for line := range strings.Lines(stderr.String()) {
		if name, _, _ := strings.Cut(line, ":"); !slices.Contains(names, name) && name != "rum-host-agent" && line != "make some\n" {
			t.Errorf("nobody knows whose line this is: %q", line)
		}
	}
}

func TestWithoutNamesOnlyLinkedAgentsAreKnownNotToBeOutdated(t *testing.T) {
	socket := agentWith(t, status.VM{Name: "dev", State: status.Down})
	var out bytes.Buffer
	if err := (&Upgrade{Version: "v0.2.0"}).Run(t.Context(), &out, io.Discard, socket); err != nil || out.String() != "no guest agent that is linked is outdated\n" {
		t.Errorf("%v, %q", err, out.String())
	}
}

func TestAFileThatIsNoGuestAgentIsRefusedThoughNobodyNeedsIt(t *testing.T) {
	socket := agentWith(t, status.VM{Name: "dev", State: status.Connected, AgentVersion: "v0.2.0"})
	file := filepath.Join(t.TempDir(), "missing")
	err := (&Upgrade{VMs: []string{"dev"}, Version: "v0.2.0", Files: []string{file}}).Run(t.Context(), io.Discard, io.Discard, socket)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// TestWhatBecameOfAReplacedAgentIsSaidAsItIs has status tell of agents that did not become what was ordered.
func TestWhatBecameOfAReplacedAgentIsSaidAsItIs(t *testing.T) {
	before := upgradeWait
	t.Cleanup(func() { upgradeWait = before })
	upgradeWait = 2 * time.Second
	began := time.Now()
	for _, test := range []struct {
		name, version string
		since         time.Time
		state         string
		want          string
	}{
		{"put back", "v0.2.0", began.Add(time.Second), status.Connected, "the new guest agent of dev did not link in time, and v0.2.0 is back"},
		{"another version", "v0.1.0", began.Add(time.Second), status.Connected, "the guest agent of dev was replaced, and says that it is v0.1.0 and not v0.3.0"},
		{"never replaced", "v0.2.0", began.Add(-time.Hour), status.Connected, "the guest agent of dev says that it was replaced, and is still v0.2.0"},
		{"away", "", began.Add(time.Second), status.Down, "the guest agent of dev was replaced, and has not linked within"},
	} {
		t.Run(test.name, func(t *testing.T) {
			socket := agentWith(t, status.VM{Name: "dev", State: test.state, AgentVersion: test.version, Since: test.since})
			err := (&Upgrade{Version: "v0.3.0"}).await(t.Context(), socket, status.VM{Name: "dev", AgentVersion: "v0.2.0"}, began, nil)
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
}
