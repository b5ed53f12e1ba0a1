package ask

import (
	"os"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
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
		if got := of(o) + ": " + seeing(o); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestAPortIsOpenedOnLocalhostIfItIsThereAndByItsNumberOnTheHost(t *testing.T) {
	forward := func(guest uint16, listening ...string) status.Forward {
		return status.Forward{Proto: "tcp", Port: guest, Listening: listening}
	}
	moved := forward(80, "127.0.0.1:8080", "[::1]:8080", "127.77.3.9:80")
	for _, row := range []struct {
		port     uint16
		forwards []status.Forward
		want     string
	}{
		{8080, []status.Forward{moved}, "127.0.0.1:8080"},
		{80, []status.Forward{moved}, "127.0.0.1:8080"},
		{3000, []status.Forward{forward(3000, "127.0.0.1:3001"), forward(3000, "127.77.3.9:3000"), forward(2, "127.0.0.1:3000")}, "127.0.0.1:3000"},
		{3000, []status.Forward{forward(3000, "127.77.3.9:3000")}, "127.77.3.9:3000"},
		{3000, []status.Forward{forward(3000, "0.0.0.0:3000")}, "0.0.0.0:3000"},
		{3000, []status.Forward{forward(3000, "/run/a.sock"), {Proto: "udp", Port: 3000, Listening: []string{"127.0.0.1:3000"}},
			{Proto: "tcp", Port: 3000, Reverse: true, Listening: []string{"127.0.0.1:3000"}}, forward(3000)}, ""},
	} {
		got, ok := openAddress(status.Status{VMs: []status.VM{{Forwards: row.forwards}}}, row.port)
		if ok != (row.want != "") || ok && got.String() != row.want {
			t.Errorf("%d of %+v: %v, want %q", row.port, row.forwards, got, row.want)
		}
	}
}
