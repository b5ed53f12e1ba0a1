#!/bin/sh
# Checks that a Go is there which builds this module, or fetches the one that
# does: from 1.21 on Go knows how to. Says in one line what to do otherwise.
set -eu

needed=$(sed -n 's/^go //p' go.mod)
if ! command -v go >/dev/null; then
	echo "Go is not installed: apt-get install golang-go, or take it from https://go.dev/dl (any Go from 1.21 on fetches the $needed that is needed)" >&2
	exit 1
fi
# Outside the module, because an old Go cannot read its go.mod.
found=$(cd / && GOTOOLCHAIN=local go env GOVERSION | sed 's/^go//')
if [ "$(printf '%s\n' 1.21 "$found" | sort -V | head -n 1)" != 1.21 ]; then
	echo "Go $found is too old to fetch the Go $needed that is needed: install Go 1.21 or newer, from https://go.dev/dl or a newer release of the distribution (Debian 12: apt-get install -t bookworm-backports golang-go)" >&2
	exit 1
fi
