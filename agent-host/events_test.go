package hostagent_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// expect reads events until one of that kind comes, and returns it.
type expect func(kind string) events.Event

func startWatched(t *testing.T) (*hostagent.Agent, expect) {
	t.Helper()
	history := events.New()
	a := startAgentWith(t, hostagent.Config{Version: "v1.2.0", Events: history, Log: quiet})
	cursor := history.Now()
	return a, func(kind string) (found events.Event) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		got := errors.New("got it")
		var seen []string
		err := history.Follow(ctx, cursor, func(all []events.Event) error {
			for _, e := range all {
				cursor = e.Cursor
				if seen = append(seen, e.Kind+" "+e.Words); e.Kind == kind {
					found = e
					return got
				}
			}
			return nil
		})
		if !errors.Is(err, got) {
			t.Fatalf("no %s among %q", kind, seen)
		}
		return found
	}
}

func TestWhatHappensToAVMAndItsPortsIsPublished(t *testing.T) {
	t.Parallel()
	a, expect := startWatched(t)
	g, port := newGuest(t), echo(t)
	g.version = "v1.1.0"
	add(t, a, g.vm("dev"))
	if e := expect(events.VMDown); e.VM != "dev" || e.Words == "" {
		t.Errorf("before there is an agent: %+v", e)
	}
	g.start()
	if e := expect(events.AgentOutdated); !strings.Contains(e.Words, "v1.1.0 is older than") {
		t.Errorf("%+v", e)
	}
	if e := expect(events.VMUp); e.AfterSeconds <= 0 || !strings.Contains(e.Words, "auth none") {
		t.Errorf("%+v", e)
	}

	g.announce(port)
	e := expect(events.Forwarding)
	want := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String()
	if e.Proto != "tcp" || e.Port != port || !slices.Contains(e.Host, want) || e.AfterSeconds != 0 {
		t.Errorf("%+v", e)
	}
	a.SetBridge("dev", guestIP)
	g.stop()
	if e := expect(events.PathChanged); e.Words != "from unix to bridge" {
		t.Errorf("%+v", e)
	}
	if e := expect(events.VMDown); e.AfterSeconds <= 0 {
		t.Errorf("%+v", e)
	}
	g.start()
	if e := expect(events.PathChanged); e.Words != "from bridge to unix" {
		t.Errorf("%+v", e)
	}
	if e := expect(events.VMUp); e.AfterSeconds <= 0 {
		t.Errorf("%+v", e)
	}
	g.announce()
	if e := expect(events.Stopped); e.Port != port || e.AfterSeconds <= 0 || !slices.Contains(e.Host, want) {
		t.Errorf("%+v", e)
	}
	a.RemoveVM("dev")
	if e := expect(events.VMDown); !strings.Contains(e.Words, "not served any more") {
		t.Errorf("%+v", e)
	}
}

// That nothing listens any more follows from it, and is in the status.
func TestThatAVMHasGoneIsToldOnce(t *testing.T) {
	t.Parallel()
	history := events.New()
	a := startAgentWith(t, hostagent.Config{Version: "test", Events: history, Log: quiet})
	g := newGuest(t)
	g.start()
	add(t, a, g.vm("dev"))
	connected := func(vms []status.VM) bool { return vms[0].State == status.Connected }
	within(t, a, patience, "a link", connected)
	before := history.Now()
	g.stop()
	within(t, a, patience, "another reason", func(vms []status.VM) bool { return strings.Contains(vms[0].Error, "no guest agent listens there") })
	g.start()
	within(t, a, patience, "a link again", connected)
	var told []string
	ctx, cancel := context.WithCancel(t.Context())
	_ = history.Follow(ctx, before, func(all []events.Event) error {
		for _, e := range all {
			if told = append(told, e.Kind); e.Kind == events.VMUp {
				cancel()
			}
		}
		return nil
	})
	cancel()
	if !slices.Equal(told, []string{events.VMDown, events.VMUp}) {
		t.Errorf("%q is told", told)
	}
}

func TestAClaimAndItsEndArePublishedWithTheHolderAndHowLongItWaited(t *testing.T) {
	t.Parallel()
	a, expect := startWatched(t)
	g, port := newGuest(t), echo(t)
	holder, err := net.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	g.announce(port)
	g.start()
	began := time.Now() // before the agent knows of the VM
	add(t, a, g.vm("dev"))
	if e := expect(events.Claim); e.Port != port || !strings.Contains(e.Words, "is held by") {
		t.Errorf("%+v", e)
	}
	holder.Close()
	if e := expect(events.Claimed); e.AfterSeconds <= 0 || e.AfterSeconds > time.Since(began).Seconds() {
		t.Errorf("%+v after %v", e, time.Since(began))
	}
}
