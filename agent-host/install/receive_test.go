package install

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAMachineThatCannotKeepTheScriptSaysWhatItLacks is how a login over ssh ends where a tool or room for files is missing.
func TestAMachineThatCannotKeepTheScriptSaysWhatItLacks(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	only := t.TempDir()
	for _, name := range []string{"cat", "id", "rm"} {
		program, err := exec.LookPath(name)
		if err == nil {
			err = os.Symlink(program, filepath.Join(only, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for want, env := range map[string]string{
		"rum-host-agent: cannot keep the script there: " + nowhere + " has to be writable and have room (see df " + nowhere + "); mend that, and run this again\n": "TMPDIR=" + nowhere,
		"rum-host-agent: mktemp is missing there: install it, and run this again\n":                                                                                "PATH=" + only,
	} {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", receive)
		cmd.Env = append(os.Environ(), env)
		cmd.Stdin = strings.NewReader("echo it has run\n")
		if out, err := cmd.CombinedOutput(); err == nil || !strings.HasSuffix(string(out), want) || strings.Contains(string(out), "it has run") {
			t.Errorf("with %s: error %v, output\n%swant\n%s", env, err, out, want)
		}
	}
}
