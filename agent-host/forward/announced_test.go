package forward_test

import (
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

// tick waits until the clock that a status shows has gone on.
func tick(after time.Time) {
	for !time.UnixMilli(time.Now().UnixMilli()).After(after) {
		time.Sleep(time.Millisecond)
	}
}

func TestAnnouncedIsWhenTheListenerWasWhateverRulesAndReleasesMakeOfIt(t *testing.T) {
	guest, first, second := ownnet.FreePort(t), ownnet.FreePort(t), ownnet.FreePort(t)
	to := func(d policy.Decision) policy.Rules {
		return func(string, portlist.Listener) policy.Decision { return d }
	}
	table := newTable(t, forward.Config{Rules: to(place(first))})
	vm := table.Add("dev")
	vm.Announce(listeners(guest, "0.0.0.0"))
	was := one(t, vm)
	tick(was.Since)

	same := func(after string) {
		t.Helper()
		for _, f := range vm.Status() {
			if !f.AnnouncedAt.Equal(was.AnnouncedAt) {
				t.Errorf("%s, %v: announced at %v, was at %v", after, f.Host, f.AnnouncedAt, was.AnnouncedAt)
			}
		}
	}
	table.SetRules(to(place(second)), nil, nil, nil)
	same("moved")
	if f := one(t, vm); !f.Since.After(was.Since) {
		t.Errorf("active there since %v, as before: %v", f.Since, was.Since)
	}
	table.SetRules(to(place(second, place(first))), nil, nil, nil)
	same("with a place more")
	table.SetRules(to(policy.Decision{Verdict: status.Ignored, Reason: "ignored by a rule"}), nil, nil, nil)
	same("ignored")
	table.SetRules(to(place(first)), nil, nil, nil)
	table.Release("", "tcp", first)
	same("released")
	if f := one(t, vm); !isReleased(f) || !f.Since.After(was.Since) {
		t.Errorf("%+v", f)
	}
	named := listeners(guest, "0.0.0.0")
	named[0].Process = "nginx[812]"
	vm.Announce(named)
	same("with the program's name")

	vm.Announce(nil)
	vm.Announce(listeners(guest, "0.0.0.0"))
	if f := one(t, vm); !f.AnnouncedAt.After(was.AnnouncedAt) {
		t.Errorf("announced anew at %v, and before at %v", f.AnnouncedAt, was.AnnouncedAt)
	}
}
