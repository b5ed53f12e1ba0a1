#!/bin/busybox sh
# PID 1 of a test guest. What differs from guest to guest is in /etc/rum:
# modules (in the order of insertion), hostname, agent-args, script.
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /root /usr/bin /sbin /usr/sbin
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/virtio-ports
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
exec </dev/null >/dev/console 2>&1

while read -r module; do
	insmod "/lib/modules/$module" || echo "init: cannot insert $module"
done </etc/rum/modules
hostname -F /etc/rum/hostname
ip link set lo up

# udev's links to the virtio-serial ports; their names arrive some time after
# the driver is in, if there are any.
for _ in $(seq 50); do
	ls -d /sys/bus/virtio/drivers/virtio_console/virtio* >/dev/null 2>&1 || break
	for port in /sys/class/virtio-ports/*; do
		name=$(cat "$port/name" 2>/dev/null) && [ -n "$name" ] &&
			ln -sf "../${port##*/}" "/dev/virtio-ports/$name"
	done
	[ -e /dev/virtio-ports/rum.agent.0 ] && [ -e /dev/virtio-ports/rum.test.shell ] && break
	usleep 100000
done

for nic in /sys/class/net/eth*; do
	[ -e "$nic" ] || continue
	ip link set "${nic##*/}" up
	udhcpc -f -t 30 -T 2 -A 2 -i "${nic##*/}" -s /etc/rum/dhcp >/dev/null &
done

# The host's end of VM.Run. The port can be open only once, hence 0<> and 1>&0.
while :; do
	sh 0<>/dev/virtio-ports/rum.test.shell 1>&0 2>&1
	usleep 200000
done &

# While /run/agent-off exists a killed agent stays away.
eval "set -- $(cat /etc/rum/agent-args)"
[ -x /bin/rum-guest-agent ] && while :; do
	if [ ! -e /run/agent-off ]; then
		/bin/rum-guest-agent "$@"
		echo "init: rum-guest-agent ended with status $?"
	fi
	usleep 200000
done &

echo "init: $(hostname) is up after $(cut -d' ' -f1 /proc/uptime) s"
sh /etc/rum/script &
while :; do
	wait
	sleep 1
done
