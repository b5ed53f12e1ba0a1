package rulefile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/rulefile"
)

// Whatever a file says, what was there is there to the byte, and the file is good.
func FuzzWhatWasThereStays(f *testing.F) {
	for _, text := range []string{
		"", rum, rum + "[[ports]]\nguest = 80\nhost = 81\n", "\xef\xbb\xbf# a\r\n[[forward]]\r\nignore = true",
		"ports = [\n # x\n {guest = 80, host = 3}\n]\n", "[provision.boot]\nscript = '''\n# x\n[[ports]]'''\n[[ports]]\nguest = 80\nhost = 9\n",
		"[[forward]] # é\nvm = \"\"\"a\\\n  # b\"\"\"\nguest = 80\n",
	} {
		f.Add(text)
	}
	dir, err := filepath.EvalSymlinks(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(dir, "shop.rum.toml")
	m, err := config.ParseMapping("8080:80", config.TCP)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		saved, err := rulefile.Save(t.Context(), path, rulefile.Rule{Mapping: m})
		now := read(t, path)
		if err != nil {
			if now != text {
				t.Fatalf("%v, and changed to %q", err, now)
			}
			return
		}
		if _, err := config.ParseProject(path, []byte(now)); err != nil {
			t.Fatalf("%v\n%s", err, now)
		}
		rule := strings.Split(now, "\n")[saved.Line-1:]
		if head := strings.TrimPrefix(strings.TrimSpace(rule[0]), "\ufeff"); head != "[[ports]]" && head != "[[forward]]" {
			t.Fatalf("line %d is %q\n%s", saved.Line, rule[0], now)
		}
		same := 0
		for same < len(text) && same < len(now) && text[same] == now[same] {
			same++
		}
		added := len(now) - len(text)
		for ; same >= 0; same-- { // what begins alike may be the rule's
			if now[:same]+now[same+added:] == text {
				return
			}
		}
		t.Fatalf("%q became %q", text, now)
	})
}
