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
// socket that leads to the machine below this one. In a VM it is made by taking the module away.
func TestExplainTellsThatThisHostHasNoVsock(t *testing.T) {
	a := New(Config{Log: slog.New(slog.DiscardHandler)})
	defer a.table.Close()
	if err := a.AddVM(VM{Name: "dev", Endpoint: endpoint.Endpoint{Scheme: endpoint.SchemeVsock, CID: 3, Port: 1021}}); err != nil {
		t.Fatal(err)
	}
	a.vms[0].dialFailed(t.Context(), fmt.Errorf("dial vsock:3:1021: %w; run: modprobe vhost_vsock", os.NewSyscallError("socket", unix.EAFNOSUPPORT)))
	all := a.Explain("dev", "tcp", 8080)
	if len(all) != 1 || all[0].Works || all[0].Remedy != "load the kernel's module with: sudo modprobe vhost_vsock" {
		t.Fatalf("%+v", all)
	}
	if last := all[0].Steps[len(all[0].Steps)-1]; last.Name != status.StepLink || last.OK || !strings.Contains(last.Text, unix.EAFNOSUPPORT.Error()) {
		t.Errorf("%+v", last)
	}
}
