#!/bin/sh
# README's two commands on a bare Debian: a new root with only Go, make and git
# in it, entered with mount and process namespaces of its own, so that no package,
# cache or setting of this machine can help. Runs as root.
#
#   test/fresh.sh [SUITE]     the Debian release, trixie if not given
set -eu
suite=${1:-trixie}

if [ "${2:-}" != inside ]; then
	cd "$(dirname "$0")/.."
	sh test/deps.sh git mmdebstrap util-linux
	dir=$(mktemp -d "${TMPDIR:-/var/tmp}/rum-fresh-XXXXXX")
	trap 'rm -rf "$dir"' EXIT
	trap 'exit 1' INT TERM HUP

	echo "fresh: a Debian whose Go is too old (bookworm) says so"
	mmdebstrap --quiet --variant=minbase --include=golang-go,make bookworm "$dir/old"
	cp -r Makefile go.mod "$dir/old/"
	mkdir "$dir/old/test"
	cp test/go.sh "$dir/old/test/"
	if said=$(chroot "$dir/old" make -s test 2>&1); then
		echo "make test succeeded with $(chroot "$dir/old" go version)" >&2
		exit 1
	fi
	case $said in
	*"too old"*"install Go 1.21 or newer"*) echo "$said" | sed 's/^/	/' ;;
	*) echo "$said" >&2; exit 1 ;;
	esac
	rm -rf "$dir/old"

	echo "fresh: a bare $suite with Go, make and git"
	mmdebstrap --quiet --variant=minbase --include=ca-certificates,git,golang-go,make "$suite" "$dir/root"
	git clone --quiet --no-local . "$dir/root/rum-agent"
	# What a user's machine has of its own: name servers, and certificates to trust.
	cp -L /etc/resolv.conf /etc/hosts "$dir/root/etc/"
	if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
		cp /etc/ssl/certs/ca-certificates.crt "$dir/root/etc/ssl/certs/"
	fi
	# Not under exec, so that the directory is removed afterwards.
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb \
		GOPROXY="$(go env GOPROXY)" GOSUMDB="$(go env GOSUMDB)" TESTFLAGS="${TESTFLAGS:-}" \
		unshare --mount --pid --fork --kill-child sh test/fresh.sh "$suite" inside "$dir/root"
	exit
fi

# In namespaces of our own: make the new root the only one there is.
root=$3
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/run"
mkdir "$root/before"
cd "$root"
pivot_root . before
cd /
umount -l /before
rmdir /before
exec chroot . /bin/sh -eu -c '
cd /rum-agent
echo "fresh: $(go version); go.mod wants $(sed -n "s/^go //p" go.mod)"
DEMO_ONCE=1 make demo
make test
echo "fresh: make demo and make test work here"
'
