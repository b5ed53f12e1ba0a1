package test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is larger is more than one idea: a package without its tests, and a file of tunnel.
const (
	maxPackageLines = 2500
	maxTunnelLines  = 400
)

func TestNoPackageAndNoFileOfTheTunnelIsTooLarge(t *testing.T) {
	packages := make(map[string]int)
	for _, top := range []string{"agent-guest", "agent-host", "cloudinit", "portwatch", "tunnel"} {
		err := filepath.WalkDir(filepath.Join("..", top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" {
				return err
			}
			src, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			lines := bytes.Count(src, []byte("\n"))
			if top == "tunnel" && lines > maxTunnelLines {
				t.Errorf("%s has %d lines, and at most %d are wanted: divide it", path, lines, maxTunnelLines)
			}
			if !strings.HasSuffix(path, "_test.go") {
				packages[filepath.Dir(path)] += lines
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for dir, lines := range packages {
		if lines > maxPackageLines {
			t.Errorf("%s has %d lines without tests, and at most %d are wanted: divide it", dir, lines, maxPackageLines)
		}
	}
}
