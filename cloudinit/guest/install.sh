#!/bin/sh
# Installs the rum guest agent, its key and its service, and starts it.
#
# The settings above this line say where the files come from:
#   mode=seed      from the NoCloud volume; run by cloud-init at every boot
#   mode=payload   from the end of this script; run by cloud-init at every boot
#   mode=install   from the end of this script; run by hand or over ssh
# At boot, what was applied once is not applied again: an agent that was replaced by hand stays, until a
# seed with another id comes. Files whose content differs are made ready beside their places, and renamed when all of them are.
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
ready= # files for which a new one is beside them
new=   # another that is being written
changed=

die() {
	echo "rum-guest-agent: $*" >&2
	exit 1
}

cleanup() {
	[ -z "$new" ] || rm -f "$new"
	for file in $ready; do
		rm -f "$file.new.$$"
	done
	[ -z "$mounted" ] || umount "$mounted" || return 0
	[ -z "$work" ] || rm -rf "$work"
}

# has FILE SUM: the file is there with that SHA-256.
has() {
	[ -f "$1" ] && [ "$(sha256sum <"$1")" = "$2  -" ]
}

# cannot WHAT DIR: ends the script because of a directory in which files cannot be written.
cannot() {
	die "cannot $1: $2 has to be a directory that is writable and has room (see df $2); mend that, and run this again"
}

# Sets src to the directory with the agent's files.
fetch() {
	work=$(mktemp -d /run/rum-agent.XXXXXX) || cannot "unpack the agent" /run
	if [ "$mode" != seed ]; then
		if ! sed '1,/^# payload$/d' "$0" | base64 -d | tar -xzf - -C "$work"; then
			! sed '1,/^# payload$/d' "$0" | base64 -d 2>/dev/null | gzip -t 2>/dev/null || cannot "unpack the agent" /run
			die "the files at the end of $0 are damaged"
		fi
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

# put NAME FILE MODE SUM: has what NAME is in src ready beside FILE.
put() {
	[ ! -d "$2" ] || die "$2 is a directory, where a file of that name has to be: move it away, and run this again"
	if has "$2" "$4"; then
		chmod "$3" "$2" || cannot "close $2 to others" "${2%/*}"
		return
	fi
	[ -n "$src" ] || fetch
	[ -f "$src/$1" ] || die "the seed has no $1"
	# What is left of one that was killed may be what fills the disk.
	for left in "$2".new.*; do
		kill -0 "${left##*.}" 2>/dev/null || rm -f "$left"
	done
	new=$2.new.$$
	cp "$src/$1" "$new" || cannot "write $2" "${2%/*}"
	has "$new" "$4" || die "$1 is damaged in the seed: its SHA-256 is not $4"
	chmod "$3" "$new"
	ready="$ready $2"
	new=
}

# replace: what is ready gets in its place.
replace() {
	for file in $ready; do
		true >"$unfinished" || cannot "write $unfinished" "${unfinished%/*}"
		mv -f "$file.new.$$" "$file"
		changed=yes
	done
	ready=
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

(umask 022 && mkdir -p "${agent%/*}") || cannot "write $agent" "${agent%/*}"
for file in "$key" "$applied"; do
	mkdir -p "${file%/*}" || cannot "write $file" "${file%/*}"
done
[ ! -e "$unfinished" ] || changed=yes
put "rum-guest-agent-linux-$arch" "$agent" 755 "$agent_sum"
program=$agent
[ -z "$ready" ] || program=$agent.new.$$
status=0
"$program" --version >/dev/null 2>&1 </dev/null || status=$?
# What a shell says of a program that it may not start.
[ "$status" != 126 ] || die "programs in ${agent%/*} are not allowed to run: mount its file system without noexec (see findmnt -T ${agent%/*}), and run this again"
put key "$key" 600 "$key_sum"
put rum-open /usr/local/bin/rum-open 755 "$open_sum"
[ ! -d /etc/profile.d ] || put rum-open.profile /etc/profile.d/rum-open.sh 644 "$profile_sum"
manager=
if [ -d /run/systemd/system ]; then
	manager=systemd
	put rum-guest-agent.service /etc/systemd/system/rum-guest-agent.service 644 "$systemd_sum"
elif command -v rc-update >/dev/null; then
	manager=openrc
	put rum-guest-agent.openrc /etc/init.d/rum-guest-agent 755 "$openrc_sum"
fi
replace
[ "$mode" != install ] || echo "the key is in $key"
[ -n "$manager" ] || die "neither systemd nor OpenRC runs here: have your init system start $agent --key-file $key"

told=
if [ -z "$changed" ] && up; then
	told="nothing to do: it is here already, with this key, and runs"
elif [ "$manager" = systemd ]; then
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
