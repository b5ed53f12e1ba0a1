package control_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

func TestAnAgentWithASocketElsewhereIsFound(t *testing.T) {
	here, there := filepath.Join(t.TempDir(), "rum-host-agent.sock"), filepath.Join(t.TempDir(), "rum-host-agent.sock")
	find := func() int {
		return slices.IndexFunc(control.Others(here), func(o control.Other) bool { return o.Socket == there })
	}
	if find() >= 0 {
		t.Error("before there is one")
	}
	leaveStale(t, there)
	if find() >= 0 {
		t.Error("one that has gone")
	}
	serve(t, there, status.Status{})
	serve(t, here, status.Status{})
	all := control.Others(here)
	if i := find(); i < 0 || all[i].UID != os.Getuid() || all[i].User == "" {
		t.Errorf("%+v", all)
	}
	if slices.ContainsFunc(all, func(o control.Other) bool { return o.Socket == here }) {
		t.Errorf("our own is among %+v", all)
	}
}
