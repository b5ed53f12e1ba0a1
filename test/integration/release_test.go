package integration

import (
	"net"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// A server of the host wants a port that a forward has, on all of its addresses. Given back, it
// is the server's; when the guest's listener has gone and comes anew, that waits for the port.
func TestAPortIsGivenBackToAServerOfTheHost(t *testing.T) {
	g := newGuest(t, "dev")
	inGuest := g.listen(t, "0.0.0.0:7860")
	greet(inGuest, "guest")
	h := startHost(t, "", g)
	h.awaitForward(t, "dev", 7860, "active", active)
	if l, err := net.Listen("tcp", ":7860"); err == nil {
		l.Close()
		t.Fatal("the port was free")
	}
	all, err := control.NewClient(h.socket).Release(t.Context(), control.Target{Proto: "tcp", Port: 7860})
	if err != nil || len(all) != 1 || all[0].VM != "dev" {
		t.Fatalf("%+v, %v", all, err)
	}
	server, err := net.Listen("tcp", ":7860")
	if err != nil {
		t.Fatal(err)
	}
	greet(server, "host")
	if f := h.awaitForward(t, "dev", 7860, "released", func(f status.Forward) bool { return f.Reason == status.Released }); f.State != status.Ignored {
		t.Errorf("%+v", f)
	}
	// What else happens in the guest changes nothing.
	other := g.listen(t, "127.0.0.1:7861")
	greet(other, "other")
	h.awaitForward(t, "dev", 7861, "active", active)
	if !answers("127.0.0.1:7860", "host") {
		t.Error("the host's server does not answer")
	}

	inGuest.Close()
	eventually(t, "gone", func() bool { _, there := h.forward(t, "dev", 7860); return !there })
	greet(g.listen(t, "0.0.0.0:7860"), "guest again")
	h.awaitForward(t, "dev", 7860, "a claim that names the host's server", func(f status.Forward) bool {
		return f.State == status.Claim && strings.Contains(f.Reason, "is held by ")
	})
	server.Close()
	h.awaitForward(t, "dev", 7860, "active again", active)
	if !answers("127.0.0.1:7860", "guest again") {
		t.Error("the guest's server does not answer")
	}
}
