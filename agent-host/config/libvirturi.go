package config

import "slices"

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
		t.doc.warnings = append(t.doc.warnings, t.doc.note(t.path.key(keyLibvirtURI),
			"is not used: a file of a project can name qemu:///system or qemu:///session only; name another with --libvirt"))
		return ""
	}
	return uri
}
