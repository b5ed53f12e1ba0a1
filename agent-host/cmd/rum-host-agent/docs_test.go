package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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

// ofOthers are options in the documents that are not ours.
var ofOthers = strings.Fields(`--unix-socket --network --user --osinfo --disk --virt-type --system --now --name --memory --max-time --import --graphics
	--data-binary --resolve --test --print-xml --noautoconsole --channel --seconds --rounds --trips --conns --idle --bin --vsock --old --guest --only`)

// TestEveryOptionThatTheDocumentsNameIsOne is about options in the text; docs/reference.md has them all, which make
// docs-check looks at.
func TestEveryOptionThatTheDocumentsNameIsOne(t *testing.T) {
	known := slices.Clone(ofOthers)
	var add func(c *cobra.Command)
	add = func(c *cobra.Command) {
		c.InitDefaultHelpFlag()
		c.InitDefaultVersionFlag()
		for _, flags := range []*pflag.FlagSet{c.Flags(), c.PersistentFlags()} {
			flags.VisitAll(func(f *pflag.Flag) { known = append(known, "--"+f.Name) })
		}
		for _, sub := range c.Commands() {
			add(sub)
		}
	}
	add(newRoot())
	guest, err := filepath.Glob("../../../agent-guest/cmd/rum-guest-agent/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range guest {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`Var\(&?[\w.]+, "([a-z-]+)"`).FindAllStringSubmatch(string(src), -1) {
			known = append(known, "--"+found[1])
		}
	}
	files, err := filepath.Glob("../../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "../../../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, option := range regexp.MustCompile(`(?:^|[\s`+"`"+`(])(--[a-z][a-z-]*)`).FindAllStringSubmatch(string(text), -1) {
			if !slices.Contains(known, option[1]) {
				t.Errorf("%s names %s, which is no option of an agent, nor in the list of others'", file, option[1])
			}
		}
	}
}
