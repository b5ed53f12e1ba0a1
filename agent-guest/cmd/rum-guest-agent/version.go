package main

import "runtime/debug"

// version is set at build time by -ldflags "-X main.version=v1.2.3".
var version string

// versionOrBuild returns version, or what the Go toolchain recorded of the
// build: the module's version, which includes the commit.
func versionOrBuild() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
