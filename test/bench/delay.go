package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lanDelay is the time that a round trip takes on the network of an office, with its switches, and the server's room a floor down.
const lanDelay = time.Millisecond

// delayed is what has come, and when it is to go on.
type delayed struct {
	bytes []byte
	due   time.Time
}

// delayWindow bounds how many reads wait for their time: enough for gigabits a second.
const delayWindow = 4096

// runDelay is the program's role between an ssh and its sshd: it runs a command, and passes on what comes for that and from it after a
// while. Not every kernel has netem, and ssh cannot tell the difference.
func runDelay(_ context.Context, args []string) error {
	if len(args) < 3 || args[1] != "--" {
		return fmt.Errorf("%w: %s DURATION -- COMMAND", errUsage, roleDelay)
	}
	by, err := time.ParseDuration(args[0])
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "command"), os.NewFile(uintptr(fds[1]), "command")
	cmd := exec.Command(args[2], args[3:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = theirs.Close()
	var back sync.WaitGroup
	back.Go(func() { passOn(os.Stdout, ours, by) })
	passOn(ours, os.Stdin, by)
	_ = unix.Shutdown(fds[0], unix.SHUT_WR)
	back.Wait()
	return cmd.Wait()
}

// passOn passes on what comes after a while, by threads of its own that sleep in the kernel: a timer of Go's may be a millisecond late.
func passOn(to io.Writer, from io.Reader, by time.Duration) {
	under := make(chan delayed, delayWindow)
	go func() {
		runtime.LockOSThread()
		defer close(under)
		for {
			b := make([]byte, 64<<10)
			n, err := from.Read(b)
			if n > 0 {
				under <- delayed{b[:n], time.Now().Add(by)}
			}
			if err != nil {
				return
			}
		}
	}()
	runtime.LockOSThread()
	for d := range under {
		left := unix.NsecToTimespec(int64(time.Until(d.due)))
		for left.Sec >= 0 && left.Nsec > 0 && errors.Is(unix.Nanosleep(&left, &left), unix.EINTR) {
		}
		if _, err := to.Write(d.bytes); err != nil {
			return
		}
	}
}
