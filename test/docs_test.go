package test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

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
