#!/bin/sh
# Removes the rum guest agent, its key and its service. Run by hand or over ssh, as root.
set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

applied=/var/lib/rum-agent/applied
removed=

for tool in grep id rm rmdir sed; do
	command -v "$tool" >/dev/null || {
		echo "rum-guest-agent: $tool is missing here: install it, and run this again" >&2
		exit 1
	}
done
[ "$(id -u)" = 0 ] || {
	echo "rum-guest-agent: must run as root" >&2
	exit 1
}

# remove FILE: it is not there any more, nor what an installation that failed left of it.
remove() {
	for there in "$1" "$1".new.*; do
		[ -e "$there" ] || continue
		rm -f "$there"
		removed=yes
	done
}

# What a package of the guest brought is the package manager's, and the key is that agent's too.
packaged=
[ ! -e /usr/bin/rum-guest-agent ] || packaged=yes

# Under OpenRC there is but one script, the package's or ours.
ours=
[ ! -e /etc/init.d/rum-guest-agent ] || grep -q '^command=/usr/bin/' /etc/init.d/rum-guest-agent || ours=yes

if [ -e /etc/systemd/system/rum-guest-agent.service ]; then
	systemctl --quiet disable --now rum-guest-agent.service
elif [ -n "$ours" ]; then
	rc-service rum-guest-agent --ifstarted stop
	[ ! -e /etc/runlevels/boot/rum-guest-agent ] || rc-update --quiet del rum-guest-agent boot
fi
remove /etc/systemd/system/rum-guest-agent.service
[ -e /etc/init.d/rum-guest-agent ] && [ -z "$ours" ] || remove /etc/init.d/rum-guest-agent
[ -z "$removed" ] || [ ! -d /run/systemd/system ] || systemctl daemon-reload
remove /usr/local/bin/rum-guest-agent
remove /usr/local/bin/rum-open
remove /etc/profile.d/rum-open.sh
[ -n "$packaged" ] || remove /etc/rum-agent/key
if [ -z "$packaged" ] && grep -qs '^# rum-guest-agent keeps the line below' /etc/hosts; then
	# In its place, because whose the file is and what label it has is not ours to say.
	rest=$(sed '/^# rum-guest-agent keeps the line below/,/^# end of what rum-guest-agent keeps[[:space:]]*$/{
		/^# rum-guest-agent keeps the line below/d
		/^# end of what rum-guest-agent keeps[[:space:]]*$/d
		/^[^[:space:]]*[[:space:]][[:space:]]*host\.rum\.internal[[:space:]]*$/d
	}' /etc/hosts)
	printf '%s\n' "$rest" >/etc/hosts
	removed=yes
fi
seeded=
[ ! -e "$applied" ] || seeded=yes
remove "$applied"
remove /var/lib/rum-agent/unfinished
for file in /var/lib/rum-agent/upgrade/*; do
	remove "$file"
done
[ ! -d /var/lib/rum-agent/upgrade ] || rmdir /var/lib/rum-agent/upgrade
for dir in /etc/rum-agent /var/lib/rum-agent; do
	[ ! -d "$dir" ] || [ -n "$packaged" ] || rmdir "$dir" 2>/dev/null || echo "$dir has more in it and stays"
done
if [ -n "$packaged" ]; then
	if [ -n "$removed" ]; then
		if [ -d /run/systemd/system ]; then
			systemctl --quiet enable --now rum-guest-agent.service
		elif [ -n "$ours" ]; then
			cp /usr/lib/rum-agent/rum-guest-agent.openrc /etc/init.d/rum-guest-agent
			chmod 755 /etc/init.d/rum-guest-agent
			rc-update --quiet add rum-guest-agent boot
			[ ! -e /etc/rum-agent/key ] || rc-service rum-guest-agent start || :
		fi
		echo "the rum-guest-agent that a host installed is removed"
	fi
	echo "the package rum-guest-agent stays, with the key in /etc/rum-agent: purge it with the package manager"
elif [ -n "$removed" ]; then
	echo "rum-guest-agent is removed, with its key and its service"
else
	echo "nothing to do: rum-guest-agent is not here"
fi
[ -z "$seeded" ] || echo "a seed image brought it: while the VM has that, the next boot installs it again"
