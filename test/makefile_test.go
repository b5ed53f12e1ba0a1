package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMakeInstallNamesTheVariableThatItCannotTake refuses before anything is built.
func TestMakeInstallNamesTheVariableThatItCannotTake(t *testing.T) {
	for target, rows := range map[string]map[string]string{
		"install": {
			"PREFIX=opt/rum": "PREFIX is 'opt/rum': it takes an absolute path", "PREFIX=/usr/": "PREFIX is '/usr/': it takes a path without", "PREFIX=": "PREFIX is '': it takes an absolute path",
			"PREFIX=/opt/my rum": "PREFIX is '/opt/my rum': it takes letters", "PREFIX=/opt/it's": "PREFIX is '/opt/it's': it takes letters",
			"ARCH=mips": "ARCH is 'mips': the agents are built for amd64 and arm64",
		},
		"uninstall": {"PREFIX=opt/rum": "PREFIX is 'opt/rum'"},
		"deb":       {"ARCH=x86_64": "ARCH is 'x86_64'"},
		"rpm":       {"ARCH=": "ARCH is ''"},
	} {
		for variable, want := range rows {
			out, err := exec.CommandContext(t.Context(), "make", "-C", "..", "--no-print-directory", "-s", target, variable).CombinedOutput()
			if err == nil || !strings.HasPrefix(string(out), want) {
				t.Errorf("make %s %s: %v, %s", target, variable, err, out)
			}
		}
	}
}

// TestSourcesWithoutGitHaveAVersionAndATime has what an archive of the sources has of them, inside of a repository of another's.
func TestSourcesWithoutGitHaveAVersionAndATime(t *testing.T) {
	repository := t.TempDir()
	for _, args := range [][]string{{"init", "-q"}, {"-c", "user.name=x", "-c", "user.email=x", "commit", "-q", "--allow-empty", "-m", "x"}, {"tag", "v9.9.9"}} {
		if out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", repository}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	dir := filepath.Join(repository, "rum-agent")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("../Makefile")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "Makefile"), makefile, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	for changelog, want := range map[string]string{
		"# Changelog\n\n## [Unreleased]\n\n## [0.3.0] - 2027-01-02\n\n## [0.2.0]\n": "v0.3.0 0.3.0 1798859045",
		"# Changelog\n\n## [Unreleased]\n":                                          " 0.0.0~20270102030405 1798859045",
	} {
		file := filepath.Join(dir, "CHANGELOG.md")
		err := os.WriteFile(file, []byte(changelog), 0o600)
		if err == nil {
			err = os.Chtimes(file, at, at)
		}
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "make", "-C", dir, "-s", "--no-print-directory", "--eval", "show: ; @echo '$(VERSION) $(PACKAGE_VERSION) $(SOURCE_DATE_EPOCH)'", "show")
		cmd.Env = append(os.Environ(), "MAKEFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != want+"\n" {
			t.Errorf("%v, %q, want %q", err, out, want)
		}
	}
}
