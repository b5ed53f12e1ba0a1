#!/bin/sh
# Before the files go: $1 is "remove" for dpkg, 0 for rpm where no other version comes.
set -e
case $1 in
remove | 0)
	[ -d /run/systemd/system ] || exit 0
	# The system's agent stays enabled until the purge, for the package may come again.
	systemctl stop rum-host-agent.service rum-host-agent.socket || :
	# Users who are logged in: their agents would go on without a program.
	for dir in /run/user/*; do
		[ -S "$dir/systemd/private" ] || continue
		runuser -u "$(stat -c %U "$dir")" -- env XDG_RUNTIME_DIR="$dir" \
			systemctl --user --quiet disable --now rum-host-agent.service rum-host-agent.socket || :
	done
	;;
esac
