//go:build e2e

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rum-vm/rum-agent/cloudinit"
	"github.com/rum-vm/rum-agent/test/e2e/cloudinit/cloudguest"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// enterOpenRC brings OpenRC up in a container: the disk $1 with changes in memory, at a place below $2, without services of
// the system's own. The agent is told to listen on a unix socket, because the vsock here is another machine's. The
// installing scripts come from the directory $3.
const enterOpenRC = `
mount -t tmpfs tmpfs "$2"
mkdir "$2/disk" "$2/changes" "$2/work" "$2/root"
mount -o loop,ro "$1" "$2/disk"
mount -t overlay -o "lowerdir=$2/disk,upperdir=$2/changes,workdir=$2/work" overlay "$2/root"
cd "$2/root"
mount -t proc proc proc
mount -t tmpfs tmpfs run
cp "$3"/* tmp
rm -f etc/runlevels/*/*
mkdir -p etc/conf.d
echo 'command_args="--key-file /etc/rum-agent/key --listen unix:/run/agent"' >etc/conf.d/rum-guest-agent
exec chroot . sh -euc "$4"
`

// useOpenRC goes through the life of the service with OpenRC's own tools, and prints a line for each step.
const useOpenRC = `
agents() {
	for p in /proc/[0-9]*; do
		[ "$(readlink "$p/exe")" != /usr/local/bin/rum-guest-agent ] || echo "${p#/proc/}"
	done
}
# until_agents N: that many agents run, and the one there is listens and is not the process number $before
before=
until_agents() {
	tries=0
	until now=$(agents); [ "$(echo $now | wc -w)" = "$1" ] && [ "$1" = 0 -o "$now" != "$before" ] && [ "$1" = 0 -o -S /run/agent ]; do
		tries=$((tries + 1))
		[ $tries -lt 300 ] || { echo "processes are: $now, were: $before"; exit 1; }
		sleep 0.1
	done
	before=$now
}
rc() { rc-service --nocolor rum-guest-agent "$@" >&2; }

openrc sysinit >&2
openrc boot >&2

sh /tmp/old >&2
until_agents 1
rc status
echo "installed, runs $("/proc/$before/exe" --version)"
echo "enabled in $(rc-update show | tr -d ' \t' | grep rum-guest-agent)"
sh /tmp/old >&2
[ "$(agents)" = "$before" ] && echo "left alone when installed again"
kill -KILL "$before"
until_agents 1
echo "back after a crash"

host() { HOME=/root /tmp/host "$@" --socket /run/host.sock; }
has() { [ "$(/usr/local/bin/rum-guest-agent --version)" = "rum-guest-agent $1" ]; }
# until_another N: the file is of version N, and the agent is not the process number $before
until_another() {
	tries=0
	until has "$1" && now=$(agents) && [ "$(echo $now | wc -w)" = 1 ] && [ "$now" != "$before" ]; do
		tries=$((tries + 1))
		[ $tries -lt 300 ] || { echo "processes are: $now, were: $before"; cat /tmp/upgrade; exit 1; }
		sleep 0.1
	done
	before=$now
}
host run --http none --vm dev=unix:/run/agent,key=/etc/rum-agent/key 2>/tmp/host.log & hosting=$!
until host status dev 2>/dev/null | grep -q connected; do sleep 0.1; done
sed -i s,/run/agent,/run/elsewhere, /etc/conf.d/rum-guest-agent # where nobody links to the next one
host upgrade dev --agent /tmp/agent >/tmp/upgrade 2>&1 & upgrading=$!
until_another $NEW
for p in /proc/[0-9]*; do # the 30 s are over
	[ "$(tr '\0' ' ' <"$p/cmdline")" != "sleep 30 " ] || kill "${p#/proc/}"
done
until_another $OLD
sed -i s,/run/elsewhere,/run/agent, /etc/conf.d/rum-guest-agent
rc restart
until_agents 1
wait $upgrading || echo "not upgraded, status $?"
grep -o 'the new guest agent.*' /tmp/upgrade
host upgrade dev --agent /tmp/agent
until_another $NEW
kill $hosting

sh /tmp/old >&2
until_agents 1
sh /tmp/new >&2
until_agents 1
echo "upgraded, runs $("/proc/$before/exe" --version)"
rc restart
until_agents 1
echo "restarted"
rc stop
until_agents 0
rc status || echo "stopped, status $?"
rc start
until_agents 1
echo "started"
rc stop
rm -r /run/openrc # which a boot begins without
openrc sysinit >&2
openrc boot >&2
until_agents 1
echo "started at the next boot"
rc stop
rm /etc/conf.d/rum-guest-agent
printf '#!/bin/sh\nexec sleep 1000\n' >/usr/local/bin/rum-guest-agent
rc start
supervisor=$(grep -ls '^supervise-daemon' /proc/[0-9]*/cmdline | head -n 1)
echo "by default its arguments are:$(tr '\0' ' ' <"$supervisor" | sed 's/.* --  *\(--key\)/ \1/; s/ *$//')"
`

func TestTheOpenRCServiceLivesUnderOpenRC(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	image, err := cloudguest.OpenRC.Fetch(ctx, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	stage := os.Getenv(stage)
	seed, scripts := &cloudinit.Seed{Name: "dev", Key: keyfile.New()}, t.TempDir()
	for name, version := range map[string]string{"old": oldVersion, "new": newVersion} {
		agent, err := cloudinit.ReadAgent(filepath.Join(stage, version))
		if err != nil {
			t.Fatal(err)
		}
		seed.Agents = []cloudinit.Agent{agent}
		script, err := seed.Installer()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(scripts, name), script, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{newHost: "host", newVersion: "agent"} {
		program, err := os.ReadFile(filepath.Join(stage, from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(scripts, to), program, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// With its init every process of the container ends.
	cmd := exec.CommandContext(ctx, "sh", "-euc", enterOpenRC, "sh", image.Disk, t.TempDir(), scripts, useOpenRC)
	cmd.Env = append(os.Environ(), "OLD="+oldVersion, "NEW="+newVersion)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Unshareflags: syscall.CLONE_NEWNS,
		Pdeathsig:    syscall.SIGKILL,
	}
	var stderr strings.Builder
	cmd.Stderr, cmd.WaitDelay = &stderr, 10*time.Second
	out, err := cmd.Output()
	want := `installed, runs rum-guest-agent ` + oldVersion + `
enabled in rum-guest-agent|boot
left alone when installed again
back after a crash
not upgraded, status 1
the new guest agent of dev did not link in time, and ` + oldVersion + ` is back
dev has ` + newVersion + ` now, and had ` + oldVersion + `
upgraded, runs rum-guest-agent ` + newVersion + `
restarted
stopped, status 3
started
started at the next boot
by default its arguments are: --key-file /etc/rum-agent/key --listen vsock --listen serial:/dev/virtio-ports/rum.agent.0
`
	if diff := cmp.Diff(want, string(out)); err != nil || diff != "" {
		t.Errorf("%v\n%s\n%s", err, diff, stderr.String())
	}
}
