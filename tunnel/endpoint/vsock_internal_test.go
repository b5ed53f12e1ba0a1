package endpoint

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// TestAKernelWithoutVsockIsToldOfWithTheModule makes the error by hand: a test must not open a socket that leads to the
// machine below this one.
func TestAKernelWithoutVsockIsToldOfWithTheModule(t *testing.T) {
	err := vsockError(&net.OpError{
		Op: "listen", Net: "vsock", Source: &vsock.Addr{ContextID: unix.VMADDR_CID_ANY, Port: 1021},
		Err: os.NewSyscallError("socket", unix.EAFNOSUPPORT),
	}, "vmw_vsock_virtio_transport")
	text := err.Error()
	if !errors.Is(err, unix.EAFNOSUPPORT) || strings.Contains(text, "4294967295") || !strings.HasSuffix(text, "the kernel has no vsock; run: modprobe vmw_vsock_virtio_transport") {
		t.Error(text)
	}
}

// rum's own agent in a VM listens on vsock ports 2222 and 2223.
func TestThePortsOfRumsOwnAgentAreLeftAlone(t *testing.T) {
	for _, port := range []uint32{DefaultPort, knockPort} {
		if port == 2222 || port == 2223 {
			t.Errorf("port %d is taken from rum's agent", port)
		}
	}
	if DefaultPort >= 1024 {
		t.Errorf("any user of a guest can own port %d", DefaultPort)
	}
}
