package hostagent

import (
	"regexp"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// sinceTag is what git describe adds to the tag that a build comes after.
var sinceTag = regexp.MustCompile(`(-[0-9]+-g[0-9a-f]+)?(-dirty)?$`)

// release is the version's release; empty for a version that belongs to none, such as that of a build without a tag.
// A build made after a release counts as the release.
func release(version string) string {
	version = sinceTag.ReplaceAllString(version, "")
	if !semver.IsValid(version) || module.IsPseudoVersion(version) {
		return ""
	}
	return version
}

// outdated reports whether a guest agent is of an older release than this host agent.
func outdated(guest, host string) bool {
	guest, host = release(guest), release(host)
	return guest != "" && host != "" && semver.Compare(guest, host) < 0
}
