package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// netns is a network namespace to start programs in. The zero value is the own one.
type netns struct {
	prefix []string // the command that runs the rest of its arguments there
}

func (p netns) command(argv ...string) []string {
	return append(append([]string{}, p.prefix...), argv...)
}

// guestNamespace makes a network namespace to play the guest. It lives until close is called.
func guestNamespace() (p netns, close func(), err error) {
	holder := exec.Command("/proc/self/exe", roleHold)
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setpgid: true}
	holder.Stderr = os.Stderr
	stdin, err := holder.StdinPipe()
	if err != nil {
		return p, nil, err
	}
	stdout, err := holder.StdoutPipe()
	if err != nil {
		return p, nil, err
	}
	if err := holder.Start(); err != nil {
		return p, nil, fmt.Errorf("create the guest's network namespace: %w", err)
	}
	close = func() {
		_ = stdin.Close()
		_ = holder.Wait()
	}
	if _, err := io.ReadFull(stdout, make([]byte, 1)); err != nil {
		close()
		return p, nil, errors.New("the guest's network namespace did not come up")
	}
	path := fmt.Sprintf("/proc/%d/ns/net", holder.Process.Pid)
	return netns{prefix: []string{"nsenter", "--net=" + path}}, close, nil
}

// holdNamespace prepares the namespace it was started in, says so with one byte, and stays until its parent closes
// standard input.
func holdNamespace() error {
	if err := furnishNetwork(); err != nil {
		return err
	}
	if _, err := os.Stdout.Write([]byte{'.'}); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
