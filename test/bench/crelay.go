package main

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"strconv"
)

//go:embed crelay/relay.c
var relaySource []byte

// startC joins two relays in C over a unix socket, for each port.
func startC(s setting) ([]*process, error) {
	source, binary := scratchPath("relay.c"), scratchPath("relay")
	if err := os.WriteFile(source, relaySource, 0o600); err != nil {
		return nil, err
	}
	if out, err := exec.Command("cc", "-O2", "-Wall", "-Werror", "-o", binary, source).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cc: %w\n%s", err, out)
	}
	var started []*process
	for _, port := range s.ports.all() {
		socket, at := scratchPath(fmt.Sprintf("relay-%d.sock", port)), strconv.Itoa(port)
		for _, argv := range [][]string{s.to.command(binary, "unix", socket, "tcp", at), {binary, "tcp", at, "unix", socket}} {
			p, err := startProcess(argv...)
			if err != nil {
				return started, err
			}
			started = append(started, p)
		}
	}
	return started, nil
}
