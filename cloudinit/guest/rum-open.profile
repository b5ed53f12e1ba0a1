# Programs of a VM that has no desktop open their pages on its host, unless the user has them do something else.
if [ -z "${BROWSER-}${DISPLAY-}${WAYLAND_DISPLAY-}" ] && [ -x /usr/local/bin/rum-open ]; then
	BROWSER=/usr/local/bin/rum-open
	export BROWSER
fi
