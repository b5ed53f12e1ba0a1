package events

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// rootCgroupInode is the inode of the root of the cgroup v2 hierarchy: the first that
// kernfs gives out (kernfs_create_root in fs/kernfs/dir.c). What a container sees at
// the top of its own hierarchy has another one.
const rootCgroupInode = 1

var errNoCgroup = errors.New("no cgroup v2 is mounted")

// rootCgroup finds where the root of the cgroup v2 hierarchy is mounted, which may be
// beside those of version 1. A program that is attached there sees every socket.
func rootCgroup() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find cgroup v2: %w", err)
	}
	defer f.Close()
	mounts, err := cgroupMounts(f)
	if err != nil {
		return "", fmt.Errorf("find cgroup v2: %w", err)
	}
	err = errNoCgroup
	for _, path := range mounts {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err == nil && st.Ino == rootCgroupInode {
			return path, nil
		}
		err = fmt.Errorf("the cgroup at %s is not the root: other processes are out of sight", path)
	}
	return "", err
}

// cgroupMounts returns the places in a mountinfo (proc_pid_mountinfo(5)) where all of a
// cgroup v2 hierarchy is mounted.
func cgroupMounts(mountinfo io.Reader) (paths []string, err error) {
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		fields, fs := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(fs) < 1 || fs[0] != "cgroup2" || fields[3] != "/" {
			continue
		}
		// Blanks and the like are written as octal numbers: \040.
		path, err := strconv.Unquote(`"` + strings.ReplaceAll(fields[4], `"`, `\"`) + `"`)
		if err != nil {
			continue
		}
		paths = append(paths, path)
	}
	return paths, lines.Err()
}
