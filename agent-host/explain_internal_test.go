package hostagent

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
)

// TestExplainTellsThatThisHostHasNoVsock makes the error by hand, of an agent that does not run: a test must not open a
// socket that leads to the machine below this one.
func TestExplainTellsThatThisHostHasNoVsock(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EAFNOSUPPORT, unix.ENODEV} {
		a := New(Config{Log: slog.New(slog.DiscardHandler)})
		if err := a.AddVM(VM{Name: "dev", Endpoint: endpoint.Endpoint{Scheme: endpoint.SchemeVsock, CID: 3, Port: 1021}}); err != nil {
			t.Fatal(err)
		}
		a.vms[0].dialFailed(t.Context(), fmt.Errorf("dial vsock:3:1021: %w; run: modprobe vhost_vsock", os.NewSyscallError("socket", errno)))
		all := a.Explain("dev", "tcp", 8080)
		if len(all) != 1 || all[0].Works || all[0].Remedy != "load the kernel's module with: sudo modprobe vhost_vsock" {
			t.Fatalf("%v: %+v", errno, all)
		}
		if last := all[0].Steps[len(all[0].Steps)-1]; last.Name != status.StepLink || last.OK || !strings.Contains(last.Text, errno.Error()) {
			t.Errorf("%v: %+v", errno, last)
		}
		a.table.Close()
	}
}
