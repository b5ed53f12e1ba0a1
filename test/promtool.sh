#!/bin/sh
# Makes sure that there is a promtool, Prometheus's own checker, for the tests of
# package metrics. Debian's package is unpacked and not installed: it would start a
# server.
set -eu

command -v promtool >/dev/null && exit 0
cache=${XDG_CACHE_HOME:-$HOME/.cache}/rum-agent
[ ! -x "$cache/promtool" ] || exit 0
package=prometheus
if apt-cache show promtool >/dev/null 2>&1; then # from Debian 13 on
	package=promtool
fi
echo "unpack promtool of Debian's $package to $cache" >&2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
# apt downloads as a user of its own, who cannot get into the directory.
apt-get -qq -o APT::Sandbox::User=root download "$package"
dpkg-deb --fsys-tarfile "$package"_*.deb | tar x ./usr/bin/promtool
mkdir -p "$cache"
# Renamed, so that others see all of it or nothing; another file system may be in between.
cp usr/bin/promtool "$cache/promtool.$$"
mv "$cache/promtool.$$" "$cache/promtool"
