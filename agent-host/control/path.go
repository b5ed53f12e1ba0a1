package control

import (
	"os"
	"path/filepath"
)

const socketName = "rum-host-agent.sock"

// DefaultSocket returns where the control socket is unless the user says
// otherwise: $XDG_RUNTIME_DIR/rum-host-agent.sock, or
// /run/rum-host-agent.sock where that variable is not set.
func DefaultSocket() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, socketName)
	}
	return filepath.Join("/run", socketName)
}
