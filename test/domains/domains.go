// Package domains is definitions of libvirt domains: as people write them by hand, and as virt-install,
// virt-manager, Vagrant and Terraform make them.
package domains

import (
	"embed"
	"io/fs"
	"testing"
)

//go:embed *.xml
var files embed.FS

// All returns the definitions by the names of their files.
func All(t testing.TB) map[string]string {
	t.Helper()
	names, err := fs.Glob(files, "*.xml")
	if err != nil {
		t.Fatal(err)
	}
	texts := make(map[string]string)
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	return texts
}
