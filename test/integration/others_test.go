package integration

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Who asks at the wrong place, or starts an agent for what another serves, is told of that one.
func TestAnAgentWithASocketOfAnotherNameIsFound(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	nobody := filepath.Join(t.TempDir(), "none.sock")
	ask := func() string {
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "rum-host-agent"), "status", "--socket", nobody).CombinedOutput()
		if err == nil {
			t.Errorf("somebody answers: %s", out)
		}
		return string(out)
	}
	if out := ask(); !strings.Contains(out, "an agent of yours runs; see it with: rum-host-agent status --socket "+h.socket) {
		t.Error(out)
	}
	h.kill()
	if out := ask(); strings.Contains(out, h.socket) {
		t.Errorf("when it has ended: %s", out)
	}
}
