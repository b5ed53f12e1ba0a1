#!/bin/sh
# Before the files go.
set -e
case $1 in
remove | 0)
	if command -v systemctl >/dev/null; then
		# It stays enabled until the purge, for the package may come again.
		# An agent that rum-host-agent install put here has a unit of its own, and goes on.
		if [ -d /run/systemd/system ] && [ ! -e /etc/systemd/system/rum-guest-agent.service ]; then
			systemctl stop rum-guest-agent.service || :
		fi
	elif command -v rc-update >/dev/null && grep -q '^command=/usr/bin/' /etc/init.d/rum-guest-agent; then
		rc-service rum-guest-agent --ifstarted stop || :
		rc-update --quiet del rum-guest-agent boot || :
		rm -f /etc/init.d/rum-guest-agent
	fi
	;;
esac
