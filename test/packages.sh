#!/bin/sh
# The packages as their users have them: lintian and rpm have no errors, and in a bare Debian, with no network, they are
# installed, upgraded and purged, which leaves nothing but keys, and says which. Runs as root.
#
#   test/packages.sh [SUITE]         the Debian release, bookworm if not given
#   test/packages.sh build DIR       builds them alone, of two versions
set -eu
cd "$(dirname "$0")/.."

# build DIR: packages of two versions.
build() {
	for version in 0.1.0 0.2.0; do
		rm -f bin/*.deb bin/*.rpm
		make -s deb rpm VERSION=v$version >"$1.log" 2>&1 || { cat "$1.log" >&2; exit 1; }
		mkdir -p "$1/$version"
		mv bin/*.deb bin/*.rpm "$1/$version"
	done
}
if [ "${1:-}" = build ]; then
	build "$2"
	exit
fi
suite=${1:-bookworm}
sh test/deps.sh lintian mmdebstrap rpm systemd util-linux
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/rum-packages-XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP

build "$dir/built"
echo "packages: $(cd "$dir/built/0.2.0" && echo *)"
lintian --allow-root --fail-on error "$dir"/built/0.2.0/*.deb
echo "packages: lintian finds no errors"
mkdir "$dir/rpmdb"
rpm --dbpath "$dir/rpmdb" -i --test --nodeps --force-debian "$dir"/built/0.2.0/*.rpm
rpm --dbpath "$dir/rpmdb" -qlp "$dir"/built/0.2.0/rum-host-agent*.rpm | grep /zsh/ >"$dir/log"
[ "$(cat "$dir/log")" = /usr/share/zsh/site-functions/_rum-host-agent ] || { cat "$dir/log"; echo "that is not where Fedora's zsh looks" >&2; exit 1; }
echo "packages: rpm would install them"

for unit in build/host/usr/lib/systemd/system/rum-host-agent.service:30 build/guest/usr/lib/systemd/system/rum-guest-agent.service:45; do
	systemd-analyze security --offline=yes --threshold="${unit##*:}" "${unit%:*}" >"$dir/log" || { cat "$dir/log" >&2; exit 1; }
	tail -n 1 "$dir/log"
done

# From source, to a place of its own, with the path that sudo has: everything is below it, the units name it, and it works from there.
PATH=/usr/sbin:/usr/bin:/sbin:/bin make -s install VERSION=v0.2.0 PREFIX=/opt/rum DESTDIR="$dir/installed" >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
at=$dir/installed/opt/rum
[ -z "$(find "$dir/installed" ! -type d ! -path "$at/*")" ]
host_files="bin/rum-host-agent lib/rum-agent/rum-guest-agent-linux-amd64 lib/rum-agent/rum-guest-agent-linux-arm64
	lib/systemd/user/rum-host-agent.socket lib/systemd/user/rum-host-agent.service
	lib/systemd/system/rum-host-agent.socket lib/systemd/system/rum-host-agent.service lib/sysusers.d/rum-agent.conf
	share/man/man1/rum-host-agent.1.gz share/man/man1/rum-host-agent-run.1.gz share/doc/rum-host-agent/LICENSE share/doc/rum-host-agent/docs/install.md
	share/bash-completion/completions/rum-host-agent share/fish/vendor_completions.d/rum-host-agent.fish"
guest_files="bin/rum-guest-agent lib/systemd/system/rum-guest-agent.service lib/rum-agent/rum-guest-agent.openrc
	share/man/man1/rum-guest-agent.1.gz share/doc/rum-guest-agent/LICENSE bin/rum-open"
# links DIR: each document there leads to what is there, or to an address.
links() {
	find "$1" -name '*.md' >"$dir/documents"
	while read -r document; do
		grep -o '](\([^)]*\))' "$document" | sed 's/^](//; s/[#)].*//' | while read -r link; do
			case $link in ''|http://*|https://*) continue ;; esac
			[ -e "${document%/*}/$link" ] || echo "$document leads to $link, which is not there"
		done
	done <"$dir/documents" >"$dir/log"
	[ -s "$dir/documents" ] && [ ! -s "$dir/log" ] || { cat "$dir/log" >&2; exit 1; }
}
for file in $host_files share/zsh/site-functions/_rum-host-agent; do
	[ -s "$at/$file" ] || { echo "make install has not installed $file" >&2; exit 1; }
done
links "$at/share/doc"
for unit in "$at"/lib/systemd/*/rum-host-agent.service; do
	programs=$(sed -n 's/^Exec[A-Za-z]*=\([^ ]*\).*/\1/p' "$unit" | sort -u)
	[ "$programs" = /opt/rum/bin/rum-host-agent ] || { echo "$unit starts $programs" >&2; exit 1; }
done
env -i HOME="$dir" "$at/bin/rum-host-agent" cloudinit dev --arch amd64,arm64 -o "$dir/seed.iso" >"$dir/log" || { cat "$dir/log" >&2; exit 1; }
# Without DESTDIR it makes the group that the system's unit takes; here nobody does.
mkdir "$dir/fake"
printf '#!/bin/sh\ncat "$@" >%s\n' "$dir/group" >"$dir/fake/systemd-sysusers"
chmod +x "$dir/fake/systemd-sysusers"
SUDO_UID=65534 SUDO_GID=65534 PATH=$dir/fake:$PATH make -s install VERSION=v0.2.0 PREFIX="$dir/own" >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
grep -q '^g rum-agent' "$dir/group"
[ -z "$(find bin build ! -user 65534)" ] && [ -z "$(find "$dir/own" -user 65534)" ] || { echo "after sudo make install its user cannot build here, or owns what is installed" >&2; exit 1; }
chown -R --reference=Makefile bin build
# Over an agent that runs, and away again.
"$at/bin/rum-host-agent" run --vm dev=unix:"$dir/nobody" --socket "$dir/agent.sock" --http none >"$dir/agent" 2>&1 &
agent=$!
until [ -S "$dir/agent.sock" ]; do sleep 0.1; done
for target in install uninstall; do
	make -s $target VERSION=v0.3.0 PREFIX=/opt/rum DESTDIR="$dir/installed" >"$dir/log" 2>&1 || { kill $agent; cat "$dir/log" >&2; exit 1; }
	[ $target = uninstall ] || [ "$("$at/bin/rum-host-agent" version)" = "rum-host-agent v0.3.0" ]
done
kill $agent
left=$(find "$dir/installed" ! -type d)
[ -z "$left" ] || { echo "make uninstall leaves $left" >&2; exit 1; }
echo "packages: make install has everything below its prefix, works from there, and takes the place of what runs; make uninstall leaves nothing"

# Sources without git make packages too.
mkdir "$dir/sources"
git ls-files | tar -c -T - | tar -x -C "$dir/sources"
make -s -C "$dir/sources" deb >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
version=$(dpkg-deb -f "$dir"/sources/bin/rum-host-agent_*.deb Version)
case $version in
[0-9]*-1) echo "packages: sources without git make version $version" ;;
*) echo "sources without git make version $version" >&2; exit 1 ;;
esac

root=$dir/root
mmdebstrap --quiet --variant=minbase --include=systemd,openrc "$suite" "$root"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
inside() {
	unshare --net --pid --fork --kill-child --mount-proc="$root/proc" chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C "$@"
}
files() {
	(cd "$root" && find . -xdev \( -path ./proc -o -path ./tmp \) -prune -o ! -type d -print | sort)
}
# What programs in there take for their browser.
browser() {
	inside sh -c '. /etc/profile.d/rum-guest-agent.sh; echo "${BROWSER-}"'
}
files >"$dir/before"
for version in 0.1.0 0.2.0; do
	rm -rf "$root/tmp/packages"
	cp -r "$dir/built/$version" "$root/tmp/packages"
	inside sh -c 'dpkg -i /tmp/packages/*.deb' >"$dir/said"
	[ "$(inside dpkg-query -W -f '${Version}' rum-host-agent)" = "$version-1" ]
done
# Removed and installed again it is enabled as before.
inside dpkg --remove rum-guest-agent >/dev/null
[ -z "$(browser)" ]
inside sh -c 'dpkg -i /tmp/packages/rum-guest-agent*.deb' >/dev/null
[ "$(inside systemctl is-enabled rum-guest-agent.service)" = enabled ]
inside systemctl --quiet enable rum-host-agent.service
mkdir -p "$root/var/lib/rum-agent/upgrade"
touch "$root/var/lib/rum-agent/setups.json" "$root/var/lib/rum-agent/known_hosts" "$root/var/lib/rum-agent/upgrade/old"
inside systemctl --global --quiet enable rum-host-agent.service
printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
cp "$root/etc/hosts" "$dir/hosts"
printf '%s\n' '# rum-guest-agent keeps the line below' '192.168.122.1 host.rum.internal' '# end of what rum-guest-agent keeps' >>"$root/etc/hosts"
# A user whose home is elsewhere, and who is not logged in.
bob=/srv/bob
echo "bob:x:4242:4242::$bob:/bin/sh" >>"$root/etc/passwd"
mkdir -p "$root$bob/.local/state/rum-agent/keys" "$root$bob/.config/systemd/user/default.target.wants"
echo key >"$root$bob/.local/state/rum-agent/keys/dev"
ln -s /usr/lib/systemd/user/rum-host-agent.service "$root$bob/.config/systemd/user/default.target.wants/"
grep -q "systemctl --user restart rum-host-agent" "$dir/said" || { cat "$dir/said"; echo "an upgrade does not say how users restart their agents" >&2; exit 1; }
[ "$(inside rum-host-agent version)" = "rum-host-agent v0.2.0" ]
[ "$(inside rum-guest-agent --version)" = "rum-guest-agent v0.2.0" ]
inside getent group rum-agent >/dev/null
for file in $host_files $guest_files share/zsh/vendor-completions/_rum-host-agent; do
	[ -s "$root/usr/$file" ] || { echo "the packages have not installed $file" >&2; exit 1; }
done
links "$root/usr/share/doc/rum-host-agent"
inside rum-host-agent cloudinit dev --arch amd64,arm64 -o /tmp/seed.iso >/dev/null
# Programs of users open pages on the host, as where rum-host-agent install put the agent.
[ "$(browser)" = /usr/bin/rum-open ] && grep -q '^exec /usr/bin/rum-guest-agent open' "$root/usr/bin/rum-open"
# What takes away an agent that a host installed leaves the package's, and the key.
install -D -m 600 /dev/null "$root/etc/rum-agent/key"
cp cloudinit/guest/uninstall.sh "$root/tmp/"
inside sh /tmp/uninstall.sh >"$dir/said"
grep -q "the package rum-guest-agent stays, with the key" "$dir/said" || { cat "$dir/said"; exit 1; }
[ -e "$root/etc/rum-agent/key" ] && [ -e "$root/usr/bin/rum-guest-agent" ]
rm -r "$root/etc/rum-agent"
: >"$root/var/lib/rum-agent/setups.json.lock" # as setup leaves it
inside dpkg --purge rum-host-agent rum-guest-agent >"$dir/said"
grep "/var/lib/rum-agent/keys stay" "$dir/said" || { cat "$dir/said"; echo "a purge does not name the keys that stay" >&2; exit 1; }
for named in "$bob/.local/state/rum-agent/keys stay" "$bob/.config/systemd/user/default.target.wants/rum-host-agent.service stays"; do
	grep -q "$named" "$dir/said" || { cat "$dir/said"; echo "a purge does not say: $named" >&2; exit 1; }
done
rm -r "${root:?}$bob"
sed -i '/^bob:/d' "$root/etc/passwd"
cmp "$dir/hosts" "$root/etc/hosts" || { echo "a purge leaves the line of the guest agent in /etc/hosts" >&2; exit 1; }
rm "$root/etc/hosts"
# What is dpkg's own, and the group, which stays as others' do.
files | grep -vE '^\./(var/lib/dpkg|var/log|etc/(group|gshadow|passwd|shadow)-?$|etc/\.pwd\.lock|var/lib/systemd/)' >"$dir/after"
left=$(comm -13 "$dir/before" "$dir/after")
echo "packages: a purge leaves $(echo $left)"
case $left in
./var/lib/rum-agent/keys/*) [ "$(echo "$left" | grep -cv '^\./var/lib/rum-agent/keys/')" = 0 ] ;;
*) exit 1 ;;
esac

# What is not the package's stays as it is: a mask, and the agent that rum-host-agent install puts there.
own=/etc/systemd/system/rum-guest-agent.service
for before in masked enabled; do
	if [ $before = masked ]; then
		inside systemctl --quiet mask rum-guest-agent.service
	else
		rm "$root$own"
		printf '[Service]\nExecStart=/usr/local/bin/rum-guest-agent\n[Install]\nWantedBy=multi-user.target\n' >"$root$own"
		inside systemctl --quiet enable rum-guest-agent.service
	fi
	inside sh -euc 'dpkg -i /tmp/packages/rum-guest-agent*.deb; dpkg --purge rum-guest-agent' >"$dir/said" 2>&1 || { cat "$dir/said"; exit 1; }
	after=$(inside systemctl is-enabled rum-guest-agent.service || :)
	[ "$after" = $before ] || { echo "a guest agent that was $before before the package came is $after when that has gone" >&2; exit 1; }
done
rm "$root$own" "$root"/etc/systemd/system/*.wants/rum-guest-agent.service
echo "packages: a mask, and an agent that is not the package's, stay as they are"

# Where there is no systemd they come and go as well, and OpenRC has the guest's service.
rm "$root/usr/bin/systemctl" "$root/usr/bin/systemd-sysusers"
install -D -m 600 /dev/null "$root/etc/rum-agent/key" # with which the service is started where OpenRC runs
inside sh -euc '
dpkg -i /tmp/packages/*.deb
rum-host-agent version
rc-update show boot | grep rum-guest-agent
[ -x /etc/init.d/rum-guest-agent ]
grep "^command=/usr/bin/rum-guest-agent$" /etc/init.d/rum-guest-agent
dpkg --purge rum-host-agent rum-guest-agent
[ ! -e /etc/init.d/rum-guest-agent ]
if rc-update show | grep rum-; then exit 1; fi
' >"$dir/said" 2>&1 || { cat "$dir/said"; echo "without systemd the packages are not installed and purged" >&2; exit 1; }
echo "packages: without systemd they are installed and purged as well, and OpenRC has the guest's service meanwhile"
