package upgrade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Manager is what starts the agent, and starts it anew. The zero value is none.
type Manager struct {
	unit    string // of systemd
	service string // of OpenRC
	// Once has nothing start the agent anew: its host does, by the way it is reached.
	Once bool
}

// FindManager finds out what has started this process.
func FindManager() Manager {
	if _, err := os.Stat("/run/systemd/system"); err == nil && os.Getenv("INVOCATION_ID") != "" {
		groups, _ := os.ReadFile("/proc/self/cgroup")
		return Manager{unit: unitOf(string(groups))}
	}
	parent, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", os.Getppid()))
	return Manager{service: serviceOf(parent)}
}

// unitOf is the service of systemd's that a process with this /proc/self/cgroup is of; "" for none.
func unitOf(groups string) string {
	for line := range strings.Lines(groups) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if dir, name := path.Split(fields[len(fields)-1]); dir == "/system.slice/" && strings.HasSuffix(name, ".service") {
			return name
		}
	}
	return ""
}

// serviceOf is the service of OpenRC's that a process with this command line supervises; "" for none.
func serviceOf(cmdline []byte) string {
	words := strings.Split(string(cmdline), "\x00")
	if len(words) < 2 || path.Base(words[0]) != "supervise-daemon" {
		return ""
	}
	return words[1]
}

// Exec reports whether an agent that is to start anew has to do that itself.
func (m Manager) Exec() bool { return m == Manager{} }

// Restart has the manager start the agent anew, and does not wait. It does nothing where there is none.
func (m Manager) Restart(ctx context.Context) error {
	switch {
	case m.unit != "":
		return run(ctx, "systemctl", "--no-block", "restart", m.unit)
	case m.service != "":
		return m.detached(m.startAnew("")...)
	}
	return nil
}

// startAnew is a command that starts the agent anew, from outside of it.
func (m Manager) startAnew(exe string) []string {
	switch {
	case m.unit != "":
		return []string{"systemctl", "restart", m.unit}
	case m.service != "":
		return []string{"rc-service", m.service, "restart"}
	case m.Once:
		return []string{"true"}
	}
	return append([]string{"sh", "-c", startAlone, "sh", strconv.Itoa(os.Getpid()), exe, exe}, os.Args[1:]...)
}

// outside runs a script that changes files where the agent's service may not, and waits for it. What it says is kept in dir.
func (m Manager) outside(ctx context.Context, dir, script string, args ...string) error {
	if m.unit == "" {
		return run(ctx, append([]string{"sh", "-c", script, "sh"}, args...)...)
	}
	// What systemd-run itself has for waiting takes a message bus, which a guest may lack.
	code := filepath.Join(dir, "code")
	if err := os.Remove(code); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := transient(ctx, []string{"--description=replaces rum-guest-agent"}, reported, append([]string{dir, script}, args...)...); err != nil {
		return err
	}
	for {
		text, err := os.ReadFile(code)
		switch {
		case err == nil && string(text) == "0\n":
			return nil
		case err == nil:
			said, _ := os.ReadFile(filepath.Join(dir, "said"))
			return fmt.Errorf("%s", bytes.TrimSpace(said[max(0, len(said)-maxSaid):]))
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// transient runs a script in a unit of its own, with options of systemd-run.
func transient(ctx context.Context, options []string, script string, args ...string) error {
	command := append([]string{"systemd-run", "--quiet", "--collect"}, options...)
	for _, word := range append([]string{"sh", "-c", script, "sh"}, args...) {
		command = append(command, strings.ReplaceAll(word, "$", "$$")) // one of a unit's own variables otherwise
	}
	return run(ctx, command...)
}

// later has a script run after a while, whatever becomes of the agent.
func (m Manager) later(ctx context.Context, after time.Duration, script string, args ...string) error {
	seconds := strconv.Itoa(max(1, int(after.Seconds())))
	if m.unit != "" {
		// Not waited for: while the machine starts, units come after this agent, which would wait for them.
		return transient(ctx, []string{"--no-block", "--on-active=" + seconds, "--timer-property=AccuracySec=1s",
			"--description=puts the old rum-guest-agent back unless the new one links"}, script, args...)
	}
	return m.detached(append([]string{"sh", "-c", "sleep " + seconds + "\n" + script, "sh"}, args...)...)
}

// maxSaid is how much of what a command says is in an error, in bytes.
const maxSaid = 300

func run(ctx context.Context, command ...string) error {
	out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	if err == nil {
		return nil
	}
	if said := bytes.TrimSpace(out); len(said) > 0 {
		return errors.New(string(said[max(0, len(said)-maxSaid):]))
	}
	return fmt.Errorf("%s: %w", command[0], err)
}

// detached starts a command that outlives this process and its service. It has the agent's log for the agent that it starts,
// if it does: who has started one for a single link waits for the end of what that writes.
func (m Manager) detached(command ...string) error {
	cmd := exec.Command(command[0], command[1:]...)
	if !m.Once {
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }()
	return nil
}
