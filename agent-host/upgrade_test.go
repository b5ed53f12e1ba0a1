package hostagent_test

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/socketpair"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// TestAGuestAgentThatTakesABinaryAndSaysNothingEndsItsUpgrade has one that reads all of it, and one that reads nothing.
func TestAGuestAgentThatTakesABinaryAndSaysNothingEndsItsUpgrade(t *testing.T) {
	t.Cleanup(hostagent.SetUpgradeSilence(500 * time.Millisecond))
	for name, reads := range map[string]bool{"reads": true, "reads nothing": false} {
		t.Run(name, func(t *testing.T) {
			a, g := startAgent(t), newGuest(t)
			g.key = bytes.Repeat([]byte{7}, 32)
			over := make(chan struct{})
			g.itself = func(wire.Target) (relay.Conn, error) {
				theirs, ours, err := socketpair.New(t.Context())
				if err != nil {
					return nil, err
				}
				go func() {
					defer ours.Close()
					if reads {
						_, _ = io.Copy(io.Discard, ours)
					}
					<-over
				}()
				return relay.Unix(theirs.(*net.UnixConn)), nil
			}
			linkWithKey(t, a, g)
			binary := make([]byte, 8<<20)
			done := make(chan error, 1)
			go func() {
				done <- a.UpgradeGuest(t.Context(), "dev", wire.UpgradeRequest{Sum: sha256.Sum256(binary), Size: uint64(len(binary)), Version: "v2"}, bytes.NewReader(binary))
			}()
			select {
			case err := <-done:
				if err == nil || !strings.Contains(err.Error(), "send the binary to dev: its agent neither took anything nor answered for") {
					t.Errorf("the upgrade ends with %v", err)
				}
			case <-time.After(patience):
				t.Error("the upgrade waits for its guest")
			}
			close(over)
		})
	}
}

// TestOfTwoUpgradesOfAVMTheSecondIsToldOfTheFirst has the link end while the first waits for its answer.
func TestOfTwoUpgradesOfAVMTheSecondIsToldOfTheFirst(t *testing.T) {
	a, g := startAgent(t), newGuest(t)
	g.key = bytes.Repeat([]byte{7}, 32)
	asked := make(chan struct{}, 1)
	g.itself = func(wire.Target) (relay.Conn, error) {
		theirs, ours, err := socketpair.New(t.Context())
		if err != nil {
			return nil, err
		}
		go func() {
			defer ours.Close()
			asked <- struct{}{}
			_, _ = io.Copy(io.Discard, ours)
			<-t.Context().Done()
		}()
		return relay.Unix(theirs.(*net.UnixConn)), nil
	}
	linkWithKey(t, a, g)
	binary := make([]byte, 1<<20)
	upgrade := func() error {
		return a.UpgradeGuest(t.Context(), "dev", wire.UpgradeRequest{Sum: sha256.Sum256(binary), Size: uint64(len(binary)), Version: "v2"}, bytes.NewReader(binary))
	}
	first := make(chan error, 1)
	go func() { first <- upgrade() }()
	<-asked
	if err := upgrade(); err == nil || !strings.HasPrefix(err.Error(), "the guest agent of dev is being upgraded already\n") {
		t.Errorf("the second ends with %v", err)
	}
	g.stop()
	select {
	case err := <-first:
		if err == nil || !strings.HasPrefix(err.Error(), "the link to dev was lost meanwhile: its guest agent has ended or starts anew\n") {
			t.Errorf("the first ends with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the first waits for a link that is lost")
	}
	if err := upgrade(); err == nil || strings.Contains(err.Error(), "already") {
		t.Errorf("a third ends with %v", err)
	}
}

// linkWithKey has an agent linked to a guest by the key of that.
func linkWithKey(t *testing.T, a *hostagent.Agent, g *guest) {
	t.Helper()
	g.start()
	vm := g.vm("dev")
	vm.Key = g.key
	add(t, a, vm)
	within(t, a, patience, "linked", func(vms []status.VM) bool { return vms[0].State == status.Connected })
}
