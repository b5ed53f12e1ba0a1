package hostagent

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

func TestWhatIsAdvisedForAVMOfAnotherHostIsToBeDoneThere(t *testing.T) {
	v := &vm{VM: VM{Name: "server/dev", Host: "server", Endpoint: endpoint.Remote("server", endpoint.SchemeUnix, nil)}}
	for _, row := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("on server: %w", fs.ErrPermission), "rum-host-agent doctor server/dev"},
		{fmt.Errorf("on server: %w", syscall.ECONNREFUSED), "rum-host-agent install server/dev"},
		{wire.ErrNotOurs, "rum-host-agent doctor server/dev"},
		{fmt.Errorf("no connection to server: %w", libvirt.Advise(errors.New("ssh: no"), "ssh-copy-id server")), "ssh-copy-id server"},
	} {
		got := v.remedy(row.err)
		if !strings.HasSuffix(got, row.want) || strings.Contains(got, "setfacl") || strings.Contains(got, "endpoint") {
			t.Errorf("of %q: %q, want an end of %q", row.err, got, row.want)
		}
	}
}
