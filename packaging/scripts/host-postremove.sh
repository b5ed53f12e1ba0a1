#!/bin/sh
# After the files are gone. Keys stay: a VM knows its host by them.
set -e
case $1 in
remove | 0) [ ! -d /run/systemd/system ] || systemctl daemon-reload ;;
esac
case $1 in
purge | 0)
	rm -f /etc/default/rum-host-agent /var/lib/rum-agent/setups.json /var/lib/rum-agent/setups.json.lock /var/lib/rum-agent/known_hosts
	for link in /etc/systemd/*/*.wants/rum-host-agent.service /etc/systemd/*/*.wants/rum-host-agent.socket; do
		[ -e "$link" ] || rm -f "$link" # one of another installation leads somewhere
	done
	# What users have is theirs, and is named.
	stay() {
		[ -z "$(ls "$1" 2>/dev/null)" ] || echo "rum-host-agent: the keys of VMs in $1 stay; remove them by hand if no VM is to be reached by them any more"
	}
	stay /var/lib/rum-agent/keys
	[ -n "$(ls /var/lib/rum-agent/keys 2>/dev/null)" ] || rm -rf /var/lib/rum-agent/keys # locks alone
	getent passwd | cut -d: -f6 | sort -u | while read -r home; do
		stay "${home%/}/.local/state/rum-agent/keys"
		for link in "$home"/.config/systemd/user/*.wants/rum-host-agent.service "$home"/.config/systemd/user/*.wants/rum-host-agent.socket; do
			[ ! -L "$link" ] || [ -e "$link" ] || echo "rum-host-agent: $link stays and leads nowhere; its user may remove it"
		done
	done
	[ ! -d /var/lib/rum-agent ] || rmdir /var/lib/rum-agent 2>/dev/null || :
	;;
esac
