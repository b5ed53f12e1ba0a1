package wire

import (
	"fmt"
	"path"
	"strings"
)

// NetworkUnix is the network of a target that is a unix stream socket.
const NetworkUnix = "unix"

// MaxSocketPath is what fits in sockaddr_un with its final zero, in bytes (unix(7)).
const MaxSocketPath = 107

// UnixTarget is the unix stream socket at an absolute path of the guest.
func UnixTarget(path string) Target { return Target{Network: NetworkUnix, Path: path} }

// UDPTarget is what a datagram stream is opened to.
func UDPTarget() Target { return Target{Network: NetworkUDP} }

// checkSocketPath reports what is wrong with the path of a socket.
func checkSocketPath(p string) error {
	switch {
	case len(p) > MaxSocketPath:
		return fmt.Errorf("socket path of %d bytes, at most %d fit", len(p), MaxSocketPath)
	case !path.IsAbs(p):
		return fmt.Errorf("socket path %q is not absolute", p)
	case strings.ContainsRune(p, 0):
		return fmt.Errorf("socket path %q holds a zero byte", p)
	}
	return nil
}
