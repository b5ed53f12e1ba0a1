package tunnel_test

import (
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/tunnel"
)

// TestAGuestAgentWithoutAKeyHasFewLinks makes links as any user of the host may.
func TestAGuestAgentWithoutAKeyHasFewLinks(t *testing.T) {
	g := startGuest(t, tunnel.PathRaw, tunnel.Config{})
	const most = 8
	var links []*tunnel.Link
	for range most {
		l, err := dial(t, g.endpoint, tunnel.Config{})
		if err != nil {
			t.Fatal(err)
		}
		links = append(links, l)
	}
	if _, err := dial(t, g.endpoint, tunnel.Config{}); err == nil || !strings.Contains(err.Error(), "8 links") {
		t.Errorf("one more link: %v", err)
	}
	_ = links[0].Close()
	eventually(t, "room for another", func() bool {
		l, err := dial(t, g.endpoint, tunnel.Config{})
		if err == nil {
			links[0] = l
		}
		return err == nil
	})
	for _, l := range links {
		_ = l.Close()
	}
}
