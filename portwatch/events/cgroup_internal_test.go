package events

import (
	"slices"
	"strings"
	"testing"
)

func TestTheRootOfCgroup2IsFoundBesideVersion1(t *testing.T) {
	const mountinfo = `30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/memory rw,nosuid shared:10 - cgroup cgroup rw,memory
40 23 0:27 /user.slice /mnt/part rw - cgroup2 cgroup2 rw
41 23 0:27 / /mnt/with\040blank rw - cgroup2 cgroup2 rw
`
	got, err := cgroupMounts(strings.NewReader(mountinfo))
	if err != nil || !slices.Equal(got, []string{"/sys/fs/cgroup/unified", "/mnt/with blank"}) {
		t.Errorf("%q, %v", got, err)
	}
}
