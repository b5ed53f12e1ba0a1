package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryCommandThatTheDocumentsGiveIsOne parses the lines of README and docs as the program would, and runs none:
// what they do is told by transcripts and scripts.
func TestEveryCommandThatTheDocumentsGiveIsOne(t *testing.T) {
	files, err := filepath.Glob("../../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^    (?:\$ )?(?:sudo )?rum-host-agent( [^#|&<>\n\\]*)`)
	seen := 0
	for _, file := range append(files, "../../../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range line.FindAllStringSubmatch(string(text), -1) {
			given, _, _ := strings.Cut(found[1], "  ") // what it does
			if strings.Contains(given, "...") {
				continue
			}
			seen++
			out, err := exec.Command("sh", "-c", `printf '%s\n' `+given).Output()
			if err != nil {
				t.Fatalf("%s: rum-host-agent%s: %v", file, given, err)
			}
			c, args, err := newRoot().Find(strings.Split(strings.TrimSpace(string(out)), "\n"))
			if err == nil {
				err = c.ParseFlags(args)
			}
			if err == nil {
				err = c.ValidateArgs(c.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: rum-host-agent%s: %v", file, given, err)
			}
		}
	}
	if seen < 20 {
		t.Errorf("README and docs give %d commands", seen)
	}
}
