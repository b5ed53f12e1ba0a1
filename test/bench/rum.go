package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

const (
	hostAgent  = "rum-host-agent"
	guestAgent = "rum-guest-agent"
)

var rumBinaries = []string{hostAgent, guestAgent}

// startRaw connects the agents over a unix socket, which allows a raw connection for each forwarded one.
func startRaw(s setting) ([]*process, error) {
	endpoint, key := "unix:"+scratchPath("agent.sock"), scratchPath("key")
	if err := writeKey(key); err != nil {
		return nil, err
	}
	guest, err := startProcess(s.to.command(filepath.Join(s.bin, guestAgent), "--listen", endpoint, "--key-file", key)...)
	if err != nil {
		return nil, err
	}
	host, err := startHostAgent(s, endpoint+",key="+key)
	if err != nil {
		return []*process{guest}, err
	}
	return []*process{guest, host}, nil
}

// startMux has the host agent start the guest's over its standard input and output: one connection, so that
// everything shares one session.
func startMux(s setting) ([]*process, error) {
	key := scratchPath("key")
	if err := writeKey(key); err != nil {
		return nil, err
	}
	guest := s.to.command(filepath.Join(s.bin, guestAgent), "--stdio", "--key-file", key)
	host, err := startHostAgent(s, "exec:"+strings.Join(guest, " ")+",key="+key)
	if err != nil {
		return nil, err
	}
	return []*process{host}, nil
}

// writeKey makes the key that both agents have, as they do in a VM: without one a host has
// an eighth of what the guest agent may have open.
func writeKey(path string) error {
	return keyfile.WritePrivate(path, keyfile.New().Encode())
}

func startHostAgent(s setting, endpoint string) (*process, error) {
	return startProcess(filepath.Join(s.bin, hostAgent), "run", "--vm", "bench="+endpoint, "--socket", controlSocket)
}

const controlSocket = scratch + "/host.sock"

// expectPath checks that every forward takes the path that is to be measured.
func expectPath(want string) func(context.Context, setting) error {
	return func(ctx context.Context, s setting) error {
		out, err := output(ctx, filepath.Join(s.bin, hostAgent), "status", "--json", "--socket", controlSocket)
		if err != nil {
			return fmt.Errorf("status: %w", err)
		}
		var status struct {
			VMs []struct {
				Forwards []struct {
					Port int    `json:"port"`
					Path string `json:"path"`
				} `json:"forwards"`
			} `json:"vms"`
		}
		if err := json.Unmarshal(out, &status); err != nil {
			return fmt.Errorf("status: %w", err)
		}
		found := 0
		for _, vm := range status.VMs {
			for _, f := range vm.Forwards {
				if !slices.Contains(s.ports.all(), f.Port) {
					continue
				}
				if found++; f.Path != want {
					return fmt.Errorf("port %d is forwarded over %q, and %q is to be measured", f.Port, f.Path, want)
				}
			}
		}
		if found < len(s.ports.all()) {
			return fmt.Errorf("status lists %d of %d ports", found, len(s.ports.all()))
		}
		return nil
	}
}
