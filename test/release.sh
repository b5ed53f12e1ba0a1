#!/bin/sh
# make release of the last commit, twice: in directories, with a host's name, a time zone, a language and a umask of their own.
# The files are the same, byte by byte, and their checksums fit. What the compiler makes of the sources may come from its cache
# the second time; Go promises that for itself. As root.
set -eu
cd "$(dirname "$0")/.."
sh test/deps.sh util-linux
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/rum-release-XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP

# release DIR COMMAND...: makes it in DIR, by way of a command.
release() {
	at=$dir/$1 log=$dir/${1%%/*}.log
	shift
	git -c advice.detachedHead=false clone --quiet . "$at"
	"$@" make -s -C "$at" release >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
}
release one &
(umask 077 && release two/of/another/depth env TZ=Asia/Kathmandu LC_ALL=C.UTF-8 unshare --uts sh -c 'hostname elsewhere; exec "$@"' sh)
wait $!

one=$dir/one/bin/release two=$dir/two/of/another/depth/bin/release
for release in "$one" "$two"; do
	(cd "$release" && sha256sum --quiet --check SHA256SUMS)
done
diff "$one/SHA256SUMS" "$two/SHA256SUMS" || { echo "release: these files are not the same when they are built again elsewhere" >&2; exit 1; }
[ "$(ls "$one" | wc -l)" = 17 ] || { ls "$one" >&2; echo "release: files are missing" >&2; exit 1; }
for agent in host guest; do for arch in amd64 arm64; do
	grep -q "\"purl\": \"pkg:golang/github.com/rum-vm/rum-agent@.*goarch=$arch" "$one/rum-$agent-agent-linux-$arch.cdx.json"
done; done
grep -q 'pkg:golang/github.com/hashicorp/yamux@' "$one/rum-guest-agent-linux-arm64.cdx.json"
echo "release: $(ls "$one" | wc -l) files, the same when they are built again elsewhere"
