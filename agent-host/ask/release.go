package ask

import (
	"context"
	"io"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

// Release gives a port of the host back, and writes whose it was.
func (o *Port) Release(ctx context.Context, w io.Writer, socket, port string) error {
	t, err := o.target(port)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	all, err := control.NewClient(socket).Release(ctx, t)
	if err != nil {
		return refused(socket, err)
	}
	return output.Released(w, all, o.Look)
}
