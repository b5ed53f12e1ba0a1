#!/bin/sh
# After the files are gone. The key stays.
set -e
case $1 in
remove | 0) [ ! -d /run/systemd/system ] || systemctl daemon-reload ;;
esac
case $1 in
purge | 0)
	rm -f /etc/default/rum-guest-agent
	for link in /etc/systemd/system/*.wants/rum-guest-agent.service; do
		[ -e "$link" ] || rm -f "$link" # that of an agent by rum-host-agent install leads somewhere
	done
	rm -rf /var/lib/rum-agent/upgrade
	[ ! -d /var/lib/rum-agent ] || rmdir /var/lib/rum-agent 2>/dev/null || :
	if [ -e /etc/rum-agent/key ]; then
		echo "rum-guest-agent: the key in /etc/rum-agent/key stays; remove it by hand if the host is not to reach this machine any more"
	fi
	;;
esac
