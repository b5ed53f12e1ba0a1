#!/bin/sh
# After the files are there: $1 is "configure" for dpkg, with the version before in $2; rpm says how many versions there
# are, 1 for a first installation.
set -e
systemd-sysusers rum-agent.conf 2>/dev/null || getent group rum-agent >/dev/null || groupadd --system rum-agent
[ ! -d /run/systemd/system ] || systemctl daemon-reload
if [ -d /run/systemd/system ]; then
	# Listeners stay open meanwhile. After a removal and another installation what was enabled is started again.
	restart=try-restart
	if systemctl --quiet is-enabled rum-host-agent.service 2>/dev/null; then restart=restart; fi
	systemctl $restart rum-host-agent.service || echo "rum-host-agent: the system's agent did not start again; see why with: systemctl status rum-host-agent"
	if systemctl --quiet is-enabled rum-host-agent.socket 2>/dev/null; then systemctl start rum-host-agent.socket || :; fi
fi
echo "rum-host-agent: to have it run from login on, as yourself: systemctl --user enable --now rum-host-agent"
if [ -n "${2:-}" ] || [ "$1" = 2 ]; then
	echo "rum-host-agent: users' agents that run go on as they are until each of them says: systemctl --user daemon-reload; systemctl --user restart rum-host-agent"
fi
