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
	if grep -qs '^# rum-guest-agent keeps the line below' /etc/hosts; then
		# In its place, because whose the file is and what label it has is not ours to say.
		rest=$(sed '/^# rum-guest-agent keeps the line below/,/^# end of what rum-guest-agent keeps[[:space:]]*$/{
			/^# rum-guest-agent keeps the line below/d
			/^# end of what rum-guest-agent keeps[[:space:]]*$/d
			/^[^[:space:]]*[[:space:]][[:space:]]*host\.rum\.internal[[:space:]]*$/d
		}' /etc/hosts)
		printf '%s\n' "$rest" >/etc/hosts
	fi
	[ ! -d /var/lib/rum-agent ] || rmdir /var/lib/rum-agent 2>/dev/null || :
	if [ -e /etc/rum-agent/key ]; then
		echo "rum-guest-agent: the key in /etc/rum-agent/key stays; remove it by hand if the host is not to reach this machine any more"
	fi
	;;
esac
