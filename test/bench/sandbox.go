package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// scratch is a directory only the sandbox sees; it is gone with the sandbox.
const scratch = "/run/bench"

// runSandboxed starts the measuring side as the first process of namespaces of its own. When it ends, for whatever
// reason, the kernel kills every process it left and drops its mounts and networks.
func runSandboxed(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{roleSandbox}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true, // a terminal's Ctrl-C comes here only, and is passed on once
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("create namespaces: %w\n  run as root, or allow unprivileged user namespaces", err)
	}
	err := cmd.Wait()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		os.Exit(exit.ExitCode()) // it has said why
	}
	return err
}

// furnishSandbox turns fresh namespaces into a machine to measure on.
func furnishSandbox() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("%w: the role %s is for the program itself", errUsage, roleSandbox)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return err
	}
	for name, value := range map[string]string{"TMPDIR": scratch, "HOME": scratch, "XDG_RUNTIME_DIR": scratch} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	if err := raiseFileLimit(); err != nil {
		return err
	}
	return furnishNetwork()
}

// furnishNetwork brings up loopback in this network namespace and gives it more ephemeral ports: connections that
// were closed a moment ago keep theirs for a while.
func furnishNetwork() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("10000 65000"), 0)
}

// wantedFiles covers a relay process with a socket and a pipe's two ends on each side of every idle connection.
const wantedFiles = 1 << 17

// raiseFileLimit raises the limit as far as it may; some sandboxes let nobody above what they came with.
func raiseFileLimit() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the open files limit: %w", err)
	}
	want := syscall.Rlimit{Cur: wantedFiles, Max: max(wantedFiles, limit.Max)}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &want); err == nil {
		return nil
	}
	// Set explicitly even so, because Go otherwise hands children the lower limit it started with.
	want = syscall.Rlimit{Cur: limit.Max, Max: limit.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &want); err != nil {
		return fmt.Errorf("raise the open files limit: %w", err)
	}
	return nil
}

// fileLimit is how many files a process may have open here.
func fileLimit() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("read the open files limit: %w", err)
	}
	return int(min(limit.Cur, wantedFiles)), nil
}

func scratchPath(name string) string { return filepath.Join(scratch, name) }
