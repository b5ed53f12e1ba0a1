package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryRowOfTroubleshootingIsMadeByTheTestItNames looks for the quoted words in what that test asserts.
func TestEveryRowOfTroubleshootingIsMadeByTheTestItNames(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	doc, err := os.ReadFile(filepath.Join(root, "docs", "troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("`([^`]+)`")
	rows := 0
	for line := range strings.Lines(string(doc)) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		rows++
		if len(cells) != 4 {
			t.Errorf("%d cells in %s", len(cells), line)
			continue
		}
		dir, test, _ := strings.Cut(strings.TrimSuffix(cells[3], " |"), " ")
		source := testSource(t, filepath.Join(root, dir), strings.Trim(test, "`"))
		for _, words := range quoted.FindAllStringSubmatch(cells[0], -1) {
			if !strings.Contains(source, words[1]) {
				t.Errorf("%s: nothing is asserted about %q", cells[3], words[1])
			}
		}
	}
	if rows < 15 {
		t.Errorf("%d rows", rows)
	}
}

// testSource is the file that a test is in, without the backslashes of its patterns; empty if there is no such test.
func testSource(t *testing.T, dir, test string) string {
	t.Helper()
	files := []string{filepath.Join(dir, test)}
	if strings.HasPrefix(test, "Test") {
		files, _ = filepath.Glob(filepath.Join(dir, "*_test.go"))
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err == nil && (!strings.HasPrefix(test, "Test") || strings.Contains(string(data), "\nfunc "+test+"(")) {
			return strings.ReplaceAll(string(data), `\`, "")
		}
	}
	t.Errorf("there is no %s in %s", test, dir)
	return ""
}
