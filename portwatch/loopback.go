package portwatch

import "golang.org/x/sys/unix"

// LoopbackDown is what is Unusable about every socket while the loopback interface
// is down: also what is sent to another address of this machine goes through it.
const LoopbackDown = "the loopback interface is down; run: ip link set lo up"

// loopbackDown asks the kernel. Where it does not say, the interface is up.
func loopbackDown() bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil || unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req) != nil {
		return false
	}
	return req.Uint16()&unix.IFF_UP == 0
}
