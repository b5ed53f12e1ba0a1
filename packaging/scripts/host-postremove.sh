#!/bin/sh
# After the files are gone. Keys stay: a VM knows its host by them.
set -e
case $1 in
remove | 0) [ ! -d /run/systemd/system ] || systemctl daemon-reload ;;
esac
case $1 in
purge | 0)
	rm -f /etc/default/rum-host-agent /var/lib/rum-agent/setups.json
	for link in /etc/systemd/system/*.wants/rum-host-agent.service /etc/systemd/system/*.wants/rum-host-agent.socket; do
		[ -e "$link" ] || rm -f "$link" # one of another installation leads somewhere
	done
	for keys in /var/lib/rum-agent/keys /root/.local/state/rum-agent/keys /home/*/.local/state/rum-agent/keys; do
		[ ! -d "$keys" ] || echo "rum-host-agent: the keys of VMs in $keys stay; remove them by hand if no VM is to be reached by them any more"
	done
	[ ! -d /var/lib/rum-agent ] || rmdir /var/lib/rum-agent 2>/dev/null || :
	;;
esac
