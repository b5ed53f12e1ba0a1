package install

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/projects"
	"github.com/rum-vm/rum-agent/test/rumproject"
)

// TestInstallGoesIntoAVMOfRumsAsRumDoes: ssh itself says what it makes of the options.
func TestInstallGoesIntoAVMOfRumsAsRumDoes(t *testing.T) {
	state := filepath.Join(t.TempDir(), "100% mine")
	t.Setenv("XDG_STATE_HOME", state)
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	_, workDir := rumproject.New(t, projects.Dir(), "shop.rum.toml", "[user]\nname = \"ops\"\n")
	if err := os.WriteFile(filepath.Join(workDir, "ssh_ed25519"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	all, _ := (&projects.Watcher{Dir: projects.Dir(), Log: slog.New(slog.DiscardHandler)}).Scan()
	p := projects.Of(all, "shop", "")
	if p == nil || p.File.Current().User != "ops" || projects.Of(all, "web", "") != nil {
		t.Fatalf("%+v", p)
	}
	options, _, err := sshAsRum(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("no ssh: install openssh-client")
	}
	out, err := exec.Command("ssh", append(options, "-G", "ops@192.0.2.7")...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got := strings.Split(string(out), "\n")
	for _, want := range []string{
		"user ops", "identityfile " + filepath.Join(workDir, "ssh_ed25519"), "identitiesonly yes", "stricthostkeychecking accept-new",
		"hostkeyalias rum-" + p.ID,
	} {
		if !slices.Contains(got, want) {
			t.Errorf("ssh does not know %q:\n%s", want, out)
		}
	}
	if !strings.Contains(string(out), "userknownhostsfile "+state+"/") {
		t.Errorf("host keys are kept elsewhere:\n%s", out)
	}
	// The key is the project's, unless it was made for a UUID that the domain had.
	if got := keyOwner("shop", p); got != keys.ProjectIdentity(p.ID) {
		t.Errorf("%q", got)
	}
	store, _ := keys.Default()
	if err := (keys.Store{Dir: store.Dir}).New("shop", "11111111-1111-1111-1111-111111111111"); err != nil {
		t.Fatal(err)
	}
	if got := keyOwner("shop", p); got != "" {
		t.Errorf("%q", got)
	}
}
