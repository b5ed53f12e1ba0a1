package ask

import (
	"os"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/control"
)

func TestAnAgentOfAnotherUserIsSeenWithThatUsersCommand(t *testing.T) {
	own := os.Getuid()
	for want, o := range map[string]control.Other{
		"yours: rum-host-agent status --socket /run/a.sock":                  {Socket: "/run/a.sock", UID: own, User: "me"},
		"bob: sudo -u bob rum-host-agent status --socket '/run/a b.sock'":    {Socket: "/run/a b.sock", UID: own + 1, User: "bob"},
		"root: sudo rum-host-agent status --socket /run/rum-host-agent.sock": {Socket: "/run/rum-host-agent.sock", UID: 0, User: "root"},
	} {
		if o.UID == 0 && own == 0 {
			continue // to root it is its own
		}
		if got := Of(o) + ": " + Seeing(o); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
