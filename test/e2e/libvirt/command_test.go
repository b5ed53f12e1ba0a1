//go:build e2e

package e2e

import (
	"strings"
	"testing"
)

// TestTheCommandsSayWhatTheyDo prints what docs/networking.md shows.
func TestTheCommandsSayWhatTheyDo(t *testing.T) {
	define(t, "dev", bare("dev", "q35", "<interface type='user'/>"))
	restore(t, definition(t, "dev"))
	before := definition(t, "dev")

	contains(t, rum(t, "network", "status"), "rum-hostonly  absent")
	dry := rum(t, "setup", "dev", "--dry-run")
	contains(t, dry, "would make network rum-hostonly: 192.168.50.0/24", "would add to dev: NIC 52:54:00:", "+++ domain dev (new)",
		"+    <interface type='network'>", "+      <source network='rum-hostonly'/>")
	if definition(t, "dev") != before {
		t.Fatal("--dry-run changed the domain")
	}
	contains(t, rum(t, "setup", "dev"), "done: make network rum-hostonly", "done: add to dev: NIC", "+      <alias name='ua-rum-hostonly'/>")
	contains(t, rum(t, "setup", "dev"), "dev: nothing to do")
	contains(t, rum(t, "network", "status"), "rum-hostonly  active  192.168.50.1/24  bridge virbr")
	contains(t, rum(t, "setup", "--undo", "dev"), "done: remove from dev: ua-rum-hostonly", "done: remove network rum-hostonly")
	if definition(t, "dev") != before {
		t.Error("undo did not give back the definition")
	}
	contains(t, rum(t, "setup", "--undo", "dev"), "dev: nothing to do")
}

func contains(t *testing.T, text string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %q:\n%s", want, text)
		}
	}
}
