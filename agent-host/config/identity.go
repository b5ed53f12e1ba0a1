package config

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"path/filepath"
	"strings"
)

// VMName is the name that rum gives to the VM of a file: NAME of NAME.rum.toml, and
// none of rum.toml.
func VMName(path string) string {
	base := filepath.Base(path)
	stem := strings.TrimSuffix(base, filepath.Ext(base))
	if stem == "rum" {
		return ""
	}
	return strings.TrimSuffix(stem, ".rum")
}

// DomainName is the name that rum gives to the domain of a file, whose path has to be free
// of symbolic links: that of its VM, or the id where the VM has none.
func DomainName(path string) string { return cmp.Or(VMName(path), ProjectID(path)) }

// goodVMName reports whether rum takes the name.
func goodVMName(name string) bool {
	for i, c := range name {
		alphanumeric := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !alphanumeric && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return name != ""
}

// ProjectID is what rum calls the VM of a file, whose path has to be free of symbolic
// links: the low half of an FNV-1a hash over the path and the VM's name.
func ProjectID(path string) string {
	h := fnv.New64a()
	h.Write([]byte(path))
	h.Write([]byte(VMName(path)))
	return fmt.Sprintf("%08x", uint32(h.Sum64()))
}
