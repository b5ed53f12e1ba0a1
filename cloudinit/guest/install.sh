#!/bin/sh
# Installs the rum guest agent, its key and its service, and starts it.
#
# The settings above this line say where the files come from:
#   mode=seed      from the NoCloud volume; run by cloud-init at every boot
#   mode=payload   from the end of this script; run by cloud-init at every boot
#   mode=install   from the end of this script; run by hand or over ssh
# At boot, what was applied once is not applied again: an agent that was replaced by hand stays, until a
# seed with another id comes. Files are replaced by a rename, and only when their content differs.
set -eu
umask 077
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

agent=/usr/local/bin/rum-guest-agent
key=/etc/rum-agent/key
applied=/var/lib/rum-agent/applied
unfinished=/var/lib/rum-agent/unfinished # there from the first change to the restart of the service

src=
work=
mounted=
new= # a file that is being written
changed=

die() {
	echo "rum-guest-agent: $*" >&2
	exit 1
}

cleanup() {
	[ -z "$new" ] || rm -f "$new"
	[ -z "$mounted" ] || umount "$mounted" || return 0
	[ -z "$work" ] || rm -rf "$work"
}

# has FILE SUM: the file is there with that SHA-256.
has() {
	[ -f "$1" ] && [ "$(sha256sum <"$1")" = "$2  -" ]
}

# Sets src to the directory with the agent's files.
fetch() {
	work=$(mktemp -d /run/rum-agent.XXXXXX)
	if [ "$mode" != seed ]; then
		sed '1,/^# payload$/d' "$0" | base64 -d | tar -xzf - -C "$work" ||
			die "the files at the end of $0 are damaged"
		src=$work/rum-agent
		return
	fi
	# Another volume or directory may carry the same label or name: ours is the one with this key.
	mkdir "$work/seed"
	for device in $(blkid -c /dev/null -t LABEL=CIDATA -o device; blkid -c /dev/null -t LABEL=cidata -o device); do
		mount -o ro,nosuid,nodev,noexec "$device" "$work/seed" || continue
		mounted=$work/seed
		src=$mounted/rum-agent
		if has "$src/key" "$key_sum"; then
			return
		fi
		umount "$mounted"
		mounted=
	done
	for src in /var/lib/cloud/seed/nocloud/rum-agent /var/lib/cloud/seed/nocloud-net/rum-agent; do
		if has "$src/key" "$key_sum"; then
			return
		fi
	done
	die "no CIDATA volume carries this agent: attach the seed image that this vendor-data came from"
}

# put NAME FILE MODE SUM: makes FILE what NAME is in src.
put() {
	if has "$2" "$4"; then
		chmod "$3" "$2"
		return
	fi
	[ -n "$src" ] || fetch
	[ -f "$src/$1" ] || die "the seed has no $1"
	# What is left of one that was killed may be what fills the disk.
	for left in "$2".new.*; do
		kill -0 "${left##*.}" 2>/dev/null || rm -f "$left"
	done
	new=$2.new.$$
	cp "$src/$1" "$new"
	has "$new" "$4" || die "$1 is damaged in the seed: its SHA-256 is not $4"
	chmod "$3" "$new"
	: >"$unfinished"
	mv -f "$new" "$2"
	new=
	changed=yes
}

# up: the service runs, and will after the next boot.
up() {
	if [ -d /run/systemd/system ]; then
		systemctl --quiet is-active rum-guest-agent.service && systemctl --quiet is-enabled rum-guest-agent.service
	else
		[ -e /etc/runlevels/boot/rum-guest-agent ] && rc-service rum-guest-agent status >/dev/null 2>&1
	fi
}

tools="base64 cat chmod cp id mkdir mktemp mv rm sed sha256sum tar uname"
if [ "$mode" = seed ]; then tools="$tools blkid mount umount"; else tools="$tools gzip"; fi
for tool in $tools; do
	command -v "$tool" >/dev/null || die "$tool is missing here: install it, and run this again"
done
[ "$(id -u)" = 0 ] || die "must run as root"

case $(uname -m) in
x86_64) arch=amd64 ;;
aarch64 | arm64) arch=arm64 ;;
armv7* | armv8l) arch=arm ;;
i?86) arch=386 ;;
loongarch64) arch=loong64 ;;
*) arch=$(uname -m) ;;
esac
eval "agent_sum=\${agent_${arch}_sum-}"
[ -n "$agent_sum" ] || die "no agent for $arch here, only for: $agents"

if [ "$mode" != install ] && [ -x "$agent" ] && [ -s "$key" ] && [ "$(cat "$applied" 2>/dev/null)" = "$id" ]; then
	exit 0
fi

trap cleanup EXIT
trap 'exit 1' HUP INT TERM

(umask 022 && mkdir -p /usr/local/bin)
mkdir -p "${key%/*}" "${applied%/*}"
[ ! -e "$unfinished" ] || changed=yes
put "rum-guest-agent-linux-$arch" "$agent" 755 "$agent_sum"
put key "$key" 600 "$key_sum"
[ "$mode" != install ] || echo "the key is in $key"
put rum-open /usr/local/bin/rum-open 755 "$open_sum"
[ ! -d /etc/profile.d ] || put rum-open.profile /etc/profile.d/rum-open.sh 644 "$profile_sum"

if [ -d /run/systemd/system ]; then
	put rum-guest-agent.service /etc/systemd/system/rum-guest-agent.service 644 "$systemd_sum"
elif command -v rc-update >/dev/null; then
	put rum-guest-agent.openrc /etc/init.d/rum-guest-agent 755 "$openrc_sum"
else
	die "neither systemd nor OpenRC runs here: have your init system start $agent --key-file $key"
fi
told=
if [ -z "$changed" ] && up; then
	told="nothing to do: it is here already, with this key, and runs"
elif [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	systemctl --quiet enable rum-guest-agent.service
	# At boot the system waits for this script, so the script must not wait for the system.
	block=--no-block
	[ "$mode" != install ] || block=
	systemctl $block "${changed:+re}start" rum-guest-agent.service
else
	rc-update --quiet add rum-guest-agent boot
	if [ -n "$changed" ]; then
		rc-service rum-guest-agent restart
	else
		rc-service rum-guest-agent --ifstopped start
	fi
fi
rm -f "$unfinished"

if [ "$mode" = install ]; then
	"$agent" --version
	echo "${told:-installed, and started}"
	exit 0
fi
new=$applied.new.$$
echo "$id" >"$new"
mv -f "$new" "$applied"
new=
exit 0
