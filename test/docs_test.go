package test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadmeAndRumDocLeadToAServedProjectByTheSameFiveLines has migrating.md lead there too.
func TestReadmeAndRumDocLeadToAServedProjectByTheSameFiveLines(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile("../" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	const heading = "\n## From nothing to a served project\n\n"
	_, rest, _ := strings.Cut(read("docs/rum.md"), heading)
	lines, _, _ := strings.Cut(rest, "\n\n")
	if n := strings.Count(lines, "\n") + 1; n != 5 {
		t.Errorf("%d lines:\n%s", n, lines)
	}
	if !strings.Contains(read("README.md"), "\n\n"+lines+"\n\n") {
		t.Errorf("README.md has other lines than docs/rum.md:\n%s", lines)
	}
	if !strings.Contains(read("docs/migrating.md"), "(rum.md#from-nothing-to-a-served-project)") {
		t.Error("docs/migrating.md does not lead there")
	}
}

// TestEveryTestThatSecurityNamesIsThere keeps docs/security.md from naming tests that
// are not there any more.
func TestEveryTestThatSecurityNamesIsThere(t *testing.T) {
	doc, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllStringSubmatch(string(doc), -1)
	if len(names) < 15 {
		t.Fatalf("%d tests are named", len(names))
	}
	out, err := exec.Command("grep", "-rhoE", `^func (Test|Fuzz)[A-Za-z0-9]+`, "--include=*_test.go", "..").Output()
	if err != nil {
		t.Fatal(err)
	}
	there := "\n" + string(out)
	for _, n := range names {
		if !strings.Contains(there, "\nfunc "+n[1]+"\n") {
			t.Errorf("there is no %s", n[1])
		}
	}
}

// sourceText is the text of all files of Go, by path.
func sourceText(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		src, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, "../")] = string(src)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestWhatTheArchitectureNamesIsThere keeps docs/architecture.md and CONTRIBUTING.md from
// leading to files and names that are not there any more.
func TestWhatTheArchitectureNamesIsThere(t *testing.T) {
	inCode, aFile := regexp.MustCompile("`([^`\n]+)`"), regexp.MustCompile(`^[a-z0-9_/-]+\.go$`)
	aName := regexp.MustCompile(`^([A-Za-z]\w*)\.(?:\w+\.)*(\w+)$`)
	source := sourceText(t)
	checked := 0
	for _, doc := range []string{"docs/architecture.md", "CONTRIBUTING.md"} {
		text, err := os.ReadFile("../" + doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range inCode.FindAllStringSubmatch(string(text), -1) {
			what := found[1]
			var is func(path, src string) bool
			if name := aName.FindStringSubmatch(what); aFile.MatchString(what) {
				is = func(path, _ string) bool { return path == what || strings.HasSuffix(path, "/"+what) }
			} else if name != nil && !strings.Contains(what, ".toml") && !strings.Contains(what, ".md") {
				// Declared, as a function, a method, a type, a field or a value, in a package of that name; of a
				// type, in any.
				declared := regexp.MustCompile(`(?m)^(func (\([^)]*\) )?|type |var |const |\t)` + name[2] + `\b`)
				is = func(path, src string) bool {
					return (strings.ToUpper(name[1][:1]) == name[1][:1] || strings.HasPrefix(src, "package "+name[1]+"\n") || strings.Contains(src, "\npackage "+name[1]+"\n")) &&
						declared.MatchString(src)
				}
				if name[1] == "net" || name[1] == "os" || name[1] == "syscall" {
					continue // not ours
				}
			} else {
				continue
			}
			checked++
			there := false
			for path, src := range source {
				there = there || is(path, src)
			}
			if !there {
				t.Errorf("%s names %s, which is not there", doc, what)
			}
		}
	}
	if checked < 50 {
		t.Errorf("only %d names were looked for", checked)
	}
}
