package ask

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"

	"github.com/rum-vm/rum-agent/agent-host/browser"
	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Open opens a port in the user's browser or, with print, writes its URL.
func (o *Port) Open(ctx context.Context, stdout, stderr io.Writer, socket, port string, print bool) error {
	t, err := o.target(port)
	if err != nil {
		return err
	}
	st, err := Status(ctx, socket, status.Query{VM: o.VM, Port: t.Port})
	switch {
	case err != nil:
		return err
	case o.VM != "" && len(st.VMs) == 0:
		return NoVM(ctx, socket, o.VM)
	}
	at, ok := browser.Find(st, t.Port)
	if !ok {
		return output.Advise(fmt.Errorf("no port %d of a VM is open on this host", t.Port), "see why with: "+o.explain(socket, t.Port))
	}
	url := browser.URL(ctx, at.Addr, func(ctx context.Context) (net.Conn, error) { return connectApart(ctx, socket, at) })
	if print {
		_, err := fmt.Fprintln(stdout, url)
		return err
	}
	err = browser.Open(ctx, url, stderr)
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return output.Advise(err, "install xdg-utils; the address is "+url)
	case err != nil:
		return output.Advise(fmt.Errorf("xdg-open: %w", err), "the address is "+url)
	}
	return nil
}

// connectApart connects to what is open at a place, by a connection that leaves no trace in what is known of the forward:
// a service may end it with an error that is no client's. Who may only look at the agent has the place itself for that.
func connectApart(ctx context.Context, socket string, at browser.Place) (net.Conn, error) {
	f, err := control.NewClient(socket).Connect(ctx, at.VM, at.Port, control.Connection{Apart: true})
	if err != nil {
		return new(net.Dialer).DialContext(ctx, "tcp", at.Addr.String())
	}
	defer f.Close()
	return net.FileConn(f)
}
