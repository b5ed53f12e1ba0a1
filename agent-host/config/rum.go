package config

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"path/filepath"
	"regexp"
	"slices"
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

// rumUser is who rum logs in as where the file does not say.
const rumUser = "rum"

// rumUser reads who rum logs in as. A name goes into commands, and may be a stranger's: it is
// one that useradd would take, in capital letters and with a dot or a domain too.
func (root table) rumUser() string {
	for _, key := range [][2]string{{"ssh", "user"}, {"user", "name"}} {
		t, _ := root.part(key[0])
		name, _ := t.values[key[1]].(string)
		switch {
		case userName.MatchString(name):
			return name
		case name != "":
			d := t.doc
			d.warnings = append(d.warnings, d.note(t.path.Key(key[1]), "is not used: no user has such a name; rum-host-agent install takes another with --to USER@HOST"))
			return ""
		}
	}
	return rumUser
}

var userName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}$`)

const keyLibvirtURI = "libvirt_uri"

// DefaultLibvirtURI is what rum takes where [advanced] says nothing.
const DefaultLibvirtURI = "qemu:///system"

// plainURIs are the only ones that a file of a project may bring. It may have come
// with a repository, and others have libvirt run commands or open sockets that they
// name.
var plainURIs = []string{DefaultLibvirtURI, "qemu:///session"}

// libvirtURI reads [advanced].
func (t table) libvirtURI() string {
	uri, ok := t.values[keyLibvirtURI].(string)
	if !ok {
		return ""
	}
	if !slices.Contains(plainURIs, uri) {
		t.doc.warnings = append(t.doc.warnings, t.doc.note(t.path.Key(keyLibvirtURI),
			"is not used: a file of a project can name qemu:///system or qemu:///session only; name another with --libvirt"))
		return ""
	}
	return uri
}
