package guestagent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// StatusDir is where the agent of a VM that systemd or OpenRC runs keeps its [Status].
const StatusDir = "/run/rum-guest-agent"

const (
	statusFile = "status.json"
	// statusEvery joins changes of the status.
	statusEvery = 200 * time.Millisecond
	// maxStatus bounds what is read of a status, in bytes. A host has a line of 80 for
	// each of 4,096 ports, and there may be some.
	maxStatus = 8 << 20
)

// Status is what an agent that runs knows of its hosts. Its form in JSON is stable:
// fields may be added.
type Status struct {
	PID     int          `json:"pid"`
	Version string       `json:"version"`
	Hosts   []HostStatus `json:"hosts"`
}

// HostStatus is a host that is linked to the agent.
type HostStatus struct {
	Name  string       `json:"name"` // as the host says
	Auth  string       `json:"auth"` // "psk" or "none"
	Ports []PortStatus `json:"ports"`
}

// PortStatus is what became of a port on a host.
type PortStatus struct {
	Proto    string `json:"proto"` // "tcp" or "udp"
	Port     uint16 `json:"port"`
	State    string `json:"state"`               // "forwarded", "elsewhere", "taken", "kept", "denied" or "released"
	HostPort uint16 `json:"host_port,omitempty"` // there; 0 for one that is kept
}

var outcomes = map[wire.PortOutcome]string{
	wire.PortForwarded: "forwarded", wire.PortTaken: "taken", wire.PortKept: "kept", wire.PortDenied: "denied",
	wire.PortElsewhere: "elsewhere", wire.PortReleased: "released",
}

// ErrNotRunning is the error of [ReadStatus] where there is no agent that keeps a status.
var ErrNotRunning = errors.New("no rum-guest-agent runs here that tells")

// ReadStatus reads the status in dir, for whoever may read it. The error wraps
// ErrNotRunning.
func ReadStatus(dir string) (*Status, error) {
	f, err := os.Open(filepath.Join(dir, statusFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxStatus))
	if err != nil {
		return nil, err
	}
	var st Status
	if err := json.Unmarshal(text, &st); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	// It is left over where the agent was killed.
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", st.PID)); errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotRunning
	}
	return &st, nil
}

// statusKeeper keeps the status in a file.
type statusKeeper struct {
	dir     string
	version string
	hosts   func() []tunnel.Host
	log     *slog.Logger
	changed chan struct{}

	last []byte // as written
	said bool   // that it cannot be
}

// change says that the status is another. It does not wait.
func (k *statusKeeper) change() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// run keeps the file until ctx ends, and removes it then.
func (k *statusKeeper) run(ctx context.Context) {
	defer os.Remove(filepath.Join(k.dir, statusFile))
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.changed:
		}
		k.write()
		select {
		case <-ctx.Done():
			return
		case <-time.After(statusEvery):
		}
	}
}

// write brings the file up to date. That it cannot is said once.
func (k *statusKeeper) write() {
	now := k.encode()
	if bytes.Equal(now, k.last) {
		return
	}
	err := publish(filepath.Join(k.dir, statusFile), now)
	if err == nil {
		k.last = now
	} else if !k.said {
		k.said = true
		k.log.Warn("rum-guest-agent status will tell nothing, or what was", "error", err)
	}
}

func (k *statusKeeper) encode() []byte {
	st := Status{PID: os.Getpid(), Version: k.version, Hosts: []HostStatus{}}
	for _, h := range k.hosts() {
		host := HostStatus{Name: h.Name, Auth: h.Auth, Ports: []PortStatus{}}
		for _, p := range h.Ports {
			host.Ports = append(host.Ports, PortStatus{Proto: p.Proto, Port: p.Port, State: outcomes[p.Outcome], HostPort: p.Host})
		}
		st.Hosts = append(st.Hosts, host)
	}
	text, err := json.Marshal(st)
	if err != nil {
		panic(err) // of strings and numbers
	}
	return append(text, '\n')
}

// publish puts a file that everybody may read in the place of another.
func publish(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
