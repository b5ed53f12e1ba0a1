// Package builds knows which of two builds of the agents is the older one.
package builds

import (
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/mod/semver"
)

// described is what git describe makes of a commit after a tag.
var described = regexp.MustCompile(`^(v.+)-([0-9]+)-g[0-9a-f]+$`)

// order is what builds can be ordered by: a tag, or a pseudo-version of Go with the commit's time in it, and the number
// of commits since. It is empty for a version that is neither, such as a bare commit.
func order(version string) (base string, commits int) {
	version = strings.TrimSuffix(version, "-dirty")
	if m := described.FindStringSubmatch(version); m != nil {
		version = m[1]
		commits, _ = strconv.Atoi(m[2])
	}
	if !semver.IsValid(version) {
		return "", 0
	}
	return version, commits
}

// Outdated says what is wrong with a guest agent's build beside this host agent's: agents of one build are made for each
// other. It is empty where nothing is, where the guest's is the newer one, and where one of them does not know its own.
func Outdated(guest, host string) string {
	for _, v := range []string{guest, host} {
		if v == "" || v == "(devel)" {
			return ""
		}
	}
	older, known := compare(guest, host)
	switch {
	case guest == host:
		return ""
	case !known || older == 0:
		return "of another build than"
	case older < 0:
		return "older than"
	}
	return ""
}

// Older reports whether a is known to be an older build than b.
func Older(a, b string) bool {
	n, known := compare(a, b)
	return known && n < 0
}

// compare is negative for an older a; known is whether the two can be ordered.
func compare(a, b string) (n int, known bool) {
	base, after := order(a)
	baseOfB, afterOfB := order(b)
	n = semver.Compare(base, baseOfB)
	if n == 0 {
		n = after - afterOfB
	}
	return n, base != "" && baseOfB != ""
}
