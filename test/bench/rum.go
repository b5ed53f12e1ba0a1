package main

import (
	"path/filepath"
	"strings"
)

const (
	hostAgent  = "rum-host-agent"
	guestAgent = "rum-guest-agent"
)

var rumBinaries = []string{hostAgent, guestAgent}

// startRaw connects the agents over a unix socket, which allows a raw connection for each forwarded one.
func startRaw(s setting) ([]*process, error) {
	endpoint := "unix:" + scratchPath("agent.sock")
	guest, err := startProcess(s.to.command(filepath.Join(s.bin, guestAgent), "--listen", endpoint)...)
	if err != nil {
		return nil, err
	}
	host, err := startHostAgent(s, endpoint)
	if err != nil {
		return []*process{guest}, err
	}
	return []*process{guest, host}, nil
}

// startMux has the host agent start the guest's over its standard input and output: one connection, so that
// everything shares one session.
func startMux(s setting) ([]*process, error) {
	host, err := startHostAgent(s, "exec:"+strings.Join(s.to.command(filepath.Join(s.bin, guestAgent), "--stdio"), " "))
	if err != nil {
		return nil, err
	}
	return []*process{host}, nil
}

func startHostAgent(s setting, endpoint string) (*process, error) {
	return startProcess(filepath.Join(s.bin, hostAgent), "run", "--vm", "bench="+endpoint, "--socket", scratchPath("host.sock"))
}
