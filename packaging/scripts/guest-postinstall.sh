#!/bin/sh
# After the files are there: as for the host's package.
set -e
if command -v systemctl >/dev/null; then
	if [ -z "${2:-}" ] && [ "$1" != 2 ]; then
		systemctl --quiet enable rum-guest-agent.service || : # it may be masked
	fi
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload
		# An agent that somebody has stopped and disabled, or masked, stays so.
		if systemctl --quiet is-enabled rum-guest-agent.service; then
			systemctl restart rum-guest-agent.service || :
		else
			systemctl try-restart rum-guest-agent.service || :
		fi
	fi
elif command -v rc-update >/dev/null && { [ ! -e /etc/init.d/rum-guest-agent ] || grep -q '^command=/usr/bin/' /etc/init.d/rum-guest-agent; }; then
	# Not among the package's files: where there is systemd, it would take the script for one of its own.
	install -m 755 /usr/lib/rum-agent/rum-guest-agent.openrc /etc/init.d/rum-guest-agent
	rc-update --quiet add rum-guest-agent boot
	# An image that is built has no OpenRC that runs.
	[ ! -e /etc/rum-agent/key ] || [ ! -e /run/openrc/softlevel ] || rc-service rum-guest-agent restart || :
fi
if [ -e /usr/local/bin/rum-guest-agent ]; then
	echo "rum-guest-agent: this is not the agent that runs here: /usr/local/bin/rum-guest-agent comes first, until its host says: rum-host-agent uninstall VM"
elif [ ! -e /etc/rum-agent/key ]; then
	echo "rum-guest-agent: it starts once /etc/rum-agent/key (chmod 600) has what rum-host-agent keys export VM prints on its host: systemctl start rum-guest-agent, or rc-service rum-guest-agent start"
fi
