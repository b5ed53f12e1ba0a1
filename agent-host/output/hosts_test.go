package output

import (
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

func TestVMsAreShownBelowTheHostThatHasThem(t *testing.T) {
	st := status.Status{
		Discovery: []status.Discovery{
			{Source: "qemu:///system", Error: "libvirt is away"},
			{Source: "ssh://far", Host: "far", State: status.Connected},
			{Source: "ssh://me@server", Host: "server", State: status.Down, Error: "ssh: connect to host server port 22: \x1b[2JConnection refused"},
			{Source: "ssh://new", Host: "new", State: status.Connecting},
			{Source: "ssh://bare", Host: "bare", State: status.Connected},
		},
		VMs: []status.VM{
			{Name: "server/dev", Host: "server", State: status.Connected},
			{Name: "dev", State: status.Connected},
			{Name: "far/dev", Host: "far", State: status.Connected},
			{Name: "server/test", Host: "server", State: status.Down},
		},
	}
	for name, row := range map[string]struct {
		st   func(status.Status) status.Status
		look Look
		want string
	}{
		"all": {func(st status.Status) status.Status { return st }, Look{}, `qemu:///system  error: libvirt is away
ssh://me@server  error: ssh: connect to host server port 22: ?[2JConnection refused
server/test  down

server/dev  connected

dev  connected

ssh://far  connected
far/dev  connected

ssh://new  connecting

ssh://bare  no VMs
`},
		"some": {func(st status.Status) status.Status { st.VMs = st.VMs[1:2]; return st }, Look{None: "none of them"}, `qemu:///system  error: libvirt is away
ssh://me@server  error: ssh: connect to host server port 22: ?[2JConnection refused

dev  connected
`},
		"none": {func(st status.Status) status.Status { st.VMs = nil; st.Discovery = st.Discovery[3:]; return st }, Look{None: "none of them"}, "none of them\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			if err := Status(&b, row.st(st), row.look); err != nil {
				t.Fatal(err)
			}
			if b.String() != row.want {
				t.Errorf("got\n%s\nwant\n%s", b.String(), row.want)
			}
		})
	}
}
