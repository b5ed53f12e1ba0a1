#!/bin/sh
# Installs those of the given Debian or Ubuntu packages that are missing, and
# makes sure that apt can find a kernel package to download.
set -eu

if ! command -v apt-get >/dev/null; then
	echo "this is not Debian or Ubuntu; install by hand what provides: $*" >&2
	exit 1
fi
as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

missing=
for package in "$@"; do
	case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in
	installed) ;;
	*) missing="$missing $package" ;;
	esac
done
if [ -n "$missing" ] || [ -z "$(apt-cache search --names-only '^linux-image-')" ]; then
	echo "apt-get update" >&2
	as_root apt-get -qq update
fi
[ -n "$missing" ] || exit 0
echo "apt-get install$missing" >&2
# dpkg has a line for every step of every package; a terminal may show them.
[ -t 2 ] || exec >/dev/null
# shellcheck disable=SC2086 # a list of words
as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
	-o Dpkg::Use-Pty=0 install $missing
