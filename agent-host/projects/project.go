package projects

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/configfile"
)

// Project is a project of rum's.
type Project struct {
	// ID is rum's: 8 hexadecimal digits.
	ID string
	// Domain is the name of the project's libvirt domain.
	Domain string
	// WorkDir is where rum keeps the domain's disks.
	WorkDir string
	// File is the project's rum.toml.
	File *configfile.File
}

// URI is the libvirt daemon that the project's domain is at.
func (p *Project) URI() string {
	if uri := p.File.Current().LibvirtURI; uri != "" {
		return uri
	}
	return config.DefaultLibvirtURI
}

// Owns reports whether a domain is the project's: it has its name, and runs from a disk
// in its work directory, wherever that is mounted. disk is the file of the domain's first
// disk; empty where none is known, and the name alone decides.
func (p *Project) Owns(domain, disk string) bool {
	return domain == p.Domain && (disk == "" || filepath.Base(filepath.Dir(disk)) == filepath.Base(p.WorkDir))
}

// NoDisk is in the place of the disk of a domain that has none in a file, which is no project's: rum's have one.
const NoDisk = "none in a file"

// Of returns the project that a domain belongs to; nil for none, and for several where no
// disk is known.
func Of(all []*Project, domain, disk string) *Project {
	var found *Project
	for _, p := range all {
		if !p.Owns(domain, disk) {
			continue
		}
		if found != nil {
			return nil // it might be either's
		}
		found = p
	}
	return found
}

// Called returns the projects that give their VM a name.
func Called(all []*Project, domain string) (called []*Project) {
	for _, p := range all {
		if p.Domain == domain {
			called = append(called, p)
		}
	}
	return called
}

// Dir is where rum keeps its work directories: rum in $XDG_DATA_HOME, without that in
// ~/.local/share. It is empty for a user without a home.
func Dir() string {
	data := os.Getenv("XDG_DATA_HOME")
	if !filepath.IsAbs(data) { // the base directory specification has a relative one ignored
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		data = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(data, "rum")
}

// isWorkDir reports whether rum could have given the name to a work directory: an id,
// or an id and the name of a VM.
func isWorkDir(name string) bool {
	const digits = 8
	if len(name) < digits {
		return false
	}
	for _, c := range name[:digits] {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return len(name) == digits || name[digits] == '-' && len(name) > digits+1
}

// MayBeOf reports whether a work directory of rum's has the name of one for that VM.
func MayBeOf(workDir, vm string) bool {
	name := filepath.Base(workDir)
	return name == vm || strings.HasSuffix(name, "-"+vm)
}
