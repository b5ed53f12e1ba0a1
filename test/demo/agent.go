package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

const hostBinary = "bin/rum-host-agent"

// hostAgent is a running rum-host-agent with a control socket of its own, so
// that it never meets the one the user may be running.
type hostAgent struct {
	process *os.Process
	socket  string
	log     string
	ended   chan struct{}
}

func startHostAgent(ctx context.Context, dir, vm string) (*hostAgent, error) {
	a := &hostAgent{
		socket: filepath.Join(dir, "control"),
		log:    filepath.Join(dir, "log"),
		ended:  make(chan struct{}),
	}
	log, err := os.Create(a.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, hostBinary, "run", "--vm", vm, "--socket", a.socket)
	cmd.Stdout, cmd.Stderr = log, log
	// Out of the terminal's foreground group: Ctrl-C is for the demo alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the host agent: %w", err)
	}
	a.process = cmd.Process
	go func() {
		cmd.Wait()
		close(a.ended)
	}()
	return a, nil
}

// stop ends the agent as a service manager would, and waits for it.
func (a *hostAgent) stop() {
	a.process.Signal(syscall.SIGTERM)
	select {
	case <-a.ended:
	case <-time.After(5 * time.Second):
		a.process.Kill()
		<-a.ended
	}
}

// failure is the error for an agent that ended by itself.
func (a *hostAgent) failure() error {
	log, err := os.ReadFile(a.log)
	return errors.Join(fmt.Errorf("the host agent ended:\n%s", bytes.TrimSpace(log)), err)
}

// command runs one of the agent's own subcommands against it.
func (a *hostAgent) command(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, hostBinary, append(args, "--socket", a.socket)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", hostBinary, args[0], err, stderr.Bytes())
	}
	return string(out), nil
}

// forward returns the forward of the web server's port, if there is one now.
func (a *hostAgent) forward(ctx context.Context) (f status.Forward, ok bool, err error) {
	out, err := a.command(ctx, "status", "--json")
	if err != nil {
		return f, false, err
	}
	var st status.Status
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		return f, false, fmt.Errorf("read status --json: %w", err)
	}
	for _, vm := range st.VMs {
		for _, f := range vm.Forwards {
			if f.Proto == "tcp" && f.Port == port {
				return f, true, nil
			}
		}
	}
	return f, false, nil
}
