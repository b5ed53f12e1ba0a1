package main

import (
	"fmt"
	"strconv"
)

// socatBuffer is the transfer size that serves socat best here; its default is 8 KiB.
const socatBuffer = 256 << 10

// startSocat joins one socat on each side over a unix socket, for each port.
func startSocat(s setting) ([]*process, error) {
	var started []*process
	for _, port := range s.ports.all() {
		socket := scratchPath(fmt.Sprintf("socat-%d.sock", port))
		for _, argv := range [][]string{
			s.to.command(socatToServer("UNIX-LISTEN:"+socket+",fork,unlink-early,backlog=1024", port)...),
			socatToGuest(port, "UNIX-CONNECT:"+socket),
		} {
			p, err := startProcess(argv...)
			if err != nil {
				return started, err
			}
			started = append(started, p)
		}
	}
	return started, nil
}

// socatToServer passes what it accepts to a server at the guest.
func socatToServer(listen string, port int) []string {
	return []string{"socat", "-b", strconv.Itoa(socatBuffer), listen, fmt.Sprintf("TCP4:127.0.0.1:%d,nodelay", port)}
}

// socatToGuest listens for clients and passes them on.
func socatToGuest(port int, connect string) []string {
	return []string{"socat", "-b", strconv.Itoa(socatBuffer),
		fmt.Sprintf("TCP4-LISTEN:%d,bind=127.0.0.1,fork,reuseaddr,nodelay,backlog=1024", port), connect}
}
