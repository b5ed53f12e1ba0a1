package portwatch_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// aloneIn is set in the environment of a test that runs alone, to the cgroup that it
// is in.
const aloneIn = "PORTWATCH_TEST_CGROUP"

// alone runs a test in a process of its own: in its own network and mount namespaces,
// and in a cgroup of its own.
func alone(t *testing.T, test func(cgroup string)) {
	t.Helper()
	if cgroup := os.Getenv(aloneIn); cgroup != "" {
		if err := loopbackUp(); err != nil {
			t.Fatal(err)
		}
		// What is mounted here is seen nowhere else.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		test(cgroup)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("programs in the kernel take root: sudo make test")
	}
	root := t.TempDir()
	if err := unix.Mount("cgroup2", root, "cgroup2", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	cgroup := filepath.Join(root, fmt.Sprintf("rum-test-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-")))
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.Remove(cgroup); err != nil {
			t.Error(err)
		}
	}()
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.v", "-test.count=1", "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), aloneIn+"="+cgroup)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UseCgroupFD: true, CgroupFD: int(dir.Fd()),
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("alone:\n%s", out)
}

// lockThread keeps a goroutine on its thread until both end.
func lockThread() { runtime.LockOSThread() }

// processTime is the CPU time that this process has used.
func processTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
