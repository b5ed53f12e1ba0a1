#!/bin/sh
# Lays out what is installed, from bin/ as make build leaves it:
#
#   packaging/stage.sh host|guest ARCH DIR [PREFIX]
#
# With PACKAGE_VERSION set, for a package.
# PREFIX is /usr for packages. Times are SOURCE_DATE_EPOCH, so that the same source gives the same package.
set -eu
what=$1 arch=$2 dir=$3 prefix=${4:-/usr}
cd "$(dirname "$0")/.."
umask 022
rm -rf "${dir:?}"
root=$dir$prefix
share=$root/share/doc/rum-$what-agent

# put FILE MODE DESTINATION
put() {
	mkdir -p "${3%/*}"
	install -m "$2" "$1" "$3"
}
# unit FILE DESTINATION: with the paths of this prefix.
unit() {
	mkdir -p "${2%/*}"
	sed "s,/usr/local/bin,$prefix/bin,g; s,/usr/bin/rum,$prefix/bin/rum,g" "$1" >"$2"
}

put "bin/rum-$what-agent-linux-$arch" 755 "$root/bin/rum-$what-agent"
put packaging/copyright 644 "$share/copyright"
put LICENSE 644 "$share/LICENSE"
mkdir -p "$root/share/man/man1"
case $what in
host)
	for guest in amd64 arm64; do
		put "bin/rum-guest-agent-linux-$guest" 755 "$root/lib/rum-agent/rum-guest-agent-linux-$guest"
	done
	for kind in service socket; do
		unit packaging/rum-host-agent.user.$kind "$root/lib/systemd/user/rum-host-agent.$kind"
		unit packaging/rum-host-agent.$kind "$root/lib/systemd/system/rum-host-agent.$kind"
	done
	put packaging/rum-agent.sysusers 644 "$root/lib/sysusers.d/rum-agent.conf"
	zsh=$root/share/zsh/site-functions
	[ "$prefix" != /usr ] || [ ! -e /etc/debian_version ] || zsh=$root/share/zsh/vendor-completions
	[ -z "${PACKAGE_VERSION:-}" ] || zsh=$dir # its place is not the same in all packages: see nfpm.host.yaml
	mkdir -p "$root/share/bash-completion/completions" "$zsh" "$root/share/fish/vendor_completions.d"
	bin/rum-host-agent completion bash >"$root/share/bash-completion/completions/rum-host-agent"
	bin/rum-host-agent completion zsh >"$zsh/_rum-host-agent"
	bin/rum-host-agent completion fish >"$root/share/fish/vendor_completions.d/rum-host-agent.fish"
	# As in the sources, so that the links lead from one to the other.
	put README.md 644 "$share/README.md"
	sed -i 's,(CHANGELOG\.md),(changelog.gz),' "$share/README.md"
	for doc in docs/*; do
		put "$doc" 644 "$share/$doc"
	done
	;;
guest)
	unit cloudinit/guest/rum-guest-agent.service "$root/lib/systemd/system/rum-guest-agent.service"
	# A package brings no key: without one it does not start, and says so.
	sed -i 's,^\[Service\]$,ConditionPathExists=/etc/rum-agent/key\n\n&,' "$root/lib/systemd/system/rum-guest-agent.service"
	unit cloudinit/guest/rum-guest-agent.openrc "$root/lib/rum-agent/rum-guest-agent.openrc"
	unit cloudinit/guest/rum-open "$root/bin/rum-open"
	chmod 755 "$root/bin/rum-open"
	# By another name than that of install, which may come to the same VM.
	unit cloudinit/guest/rum-open.profile "$dir/etc/profile.d/rum-guest-agent.sh"
	;;
esac
go run ./packaging/man "$root/share/man/man1" "bin/rum-$what-agent"
gzip -9n "$root"/share/man/man1/*
gzip -9nc CHANGELOG.md >"$share/changelog.gz"
if [ -n "${PACKAGE_VERSION:-}" ]; then
	put "packaging/rum-$what-agent.lintian" 644 "$root/share/lintian/overrides/rum-$what-agent"
	gzip -9nc >"$share/changelog.Debian.gz" <<-EOF
	rum-$what-agent ($PACKAGE_VERSION-1) unstable; urgency=medium

	  * See changelog.gz.

	 -- The rum agents authors <rum-agents@users.noreply.github.com>  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
	EOF
fi
find "$dir" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
