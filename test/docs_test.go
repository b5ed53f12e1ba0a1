package test

import (
	"os"
	"os/exec"
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
