package install

import (
	"runtime/debug"
	"testing"
)

// TestAGuestAgentIsOfThisBuildUnlessBothSayOtherwise has the records of stripped binaries of make build, of go build, and of
// one outside of a repository.
func TestAGuestAgentIsOfThisBuildUnlessBothSayOtherwise(t *testing.T) {
	build := func(settings ...string) *debug.BuildInfo {
		b := &debug.BuildInfo{}
		for i := 0; i < len(settings); i += 2 {
			b.Settings = append(b.Settings, debug.BuildSetting{Key: settings[i], Value: settings[i+1]})
		}
		return b
	}
	const flags = "-s -w -X main.version="
	for _, test := range []struct {
		name     string
		its, own *debug.BuildInfo
		want     string
	}{
		{"the same commit", build("vcs.revision", "aa", "vcs.modified", "false", "GOARCH", "arm64"), build("vcs.revision", "aa", "vcs.modified", "false", "GOARCH", "amd64"), ""},
		{"another commit", build("vcs.revision", "bb", "vcs.modified", "false"), build("vcs.revision", "aa", "vcs.modified", "false"), "commit bb, and not aa"},
		{"with changes", build("vcs.revision", "aa", "vcs.modified", "true"), build("vcs.revision", "aa", "vcs.modified", "false"), "modified true, and not false"},
		{"another version", build("-ldflags", flags+"v0.1.0"), build("-ldflags", flags+"v0.3.0"), "version v0.1.0, and not v0.3.0"},
		{"the same version, not stripped", build("-ldflags", "-X main.version=v0.3.0"), build("-ldflags", flags+"v0.3.0 -s"), ""},
		{"one that does not know", build(), build("vcs.revision", "aa", "vcs.modified", "false", "-ldflags", flags+"v0.3.0"), ""},
		{"a program that does not know", build("vcs.revision", "aa", "-ldflags", flags+"v0.3.0"), build("-ldflags", "-s"), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := otherBuild(test.its, test.own); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// TestAGuestAgentThatHasNoRecordOfItsVersionIsAskedBeforeItIsSent has programs that say one, and that do not.
func TestAGuestAgentThatHasNoRecordOfItsVersionIsAskedBeforeItIsSent(t *testing.T) {
	for says, want := range map[string]string{
		"echo rum-guest-agent v0.1.0":         "version v0.1.0, and not v0.3.0",
		"echo rum-guest-agent v0.3.0":         "",
		"echo bash 5.2":                       "",
		"echo rum-guest-agent v0.1.0; exit 1": "",
	} {
		if got := otherVersion(t.Context(), []byte("#!/bin/sh\n[ \"$1\" = --version ] || exit 1\n"+says+"\n"), "v0.3.0"); got != want {
			t.Errorf("%s: %q, want %q", says, got, want)
		}
	}
}
