package config

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// TestTheDocumentedFileHasEveryKeyThatThereIs: docs/rum.toml has each, in force or behind a #, and no other.
func TestTheDocumentedFileHasEveryKeyThatThereIs(t *testing.T) {
	text, err := os.ReadFile("../../docs/rum.toml")
	if err != nil {
		t.Fatal(err)
	}
	known := slices.Concat(ruleKeys, networkKeys, autoKeys, vmKeys, []string{keyURL})
	var named []string
	for _, found := range regexp.MustCompile(`(?m)^(?:# ?)?([a-z_]+) = `).FindAllStringSubmatch(string(text), -1) {
		named = append(named, found[1])
		if !slices.Contains(known, found[1]) {
			t.Errorf("docs/rum.toml has %s, which is no key", found[1])
		}
	}
	for _, key := range known {
		if !slices.Contains(named, key) {
			t.Errorf("docs/rum.toml lacks %s", key)
		}
	}
}
