//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// hostAgent is a running rum-host-agent.
type hostAgent struct {
	cmd    *exec.Cmd
	binary string
	socket string
	log    string
}

// startHostAgent runs the binary in dir, where its socket and log go too.
func startHostAgent(dir string, args ...string) (*hostAgent, error) {
	h := &hostAgent{
		binary: filepath.Join(dir, "rum-host-agent"),
		socket: filepath.Join(dir, "control"),
		log:    filepath.Join(dir, "host.log"),
	}
	log, err := os.Create(h.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	h.cmd = exec.Command(h.binary, append([]string{"run", "--log-level", "debug", "--socket", h.socket}, args...)...)
	h.cmd.Stdout, h.cmd.Stderr = log, log
	// A test binary that dies must not leave it behind. Called on the main
	// goroutine, whose thread stays.
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := h.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the host agent: %w", err)
	}
	return h, nil
}

// stop asks the agent to end, which it must do soon and with status 0.
func (h *hostAgent) stop() error {
	kill := time.AfterFunc(10*time.Second, func() { h.cmd.Process.Kill() })
	defer kill.Stop()
	h.cmd.Process.Signal(syscall.SIGTERM)
	if err := h.cmd.Wait(); err != nil {
		return fmt.Errorf("the host agent did not end cleanly: %w", err)
	}
	return nil
}

// vm is the status of the agent's one virtual machine.
func (h *hostAgent) vm(ctx context.Context) (status.VM, error) {
	out, err := exec.CommandContext(ctx, h.binary, "status", "--json", "--socket", h.socket).Output()
	if err != nil {
		return status.VM{}, fmt.Errorf("status: %w", err)
	}
	var st status.Status
	if err := json.Unmarshal(out, &st); err != nil {
		return status.VM{}, fmt.Errorf("status: %w in %s", err, out)
	}
	if len(st.VMs) != 1 {
		return status.VM{}, fmt.Errorf("status lists %d machines: %s", len(st.VMs), out)
	}
	return st.VMs[0], nil
}

func (h *hostAgent) logged() string {
	log, err := os.ReadFile(h.log)
	if err != nil {
		return err.Error()
	}
	return string(log)
}
