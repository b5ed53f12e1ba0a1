package ask

import (
	"context"
	"errors"
	"io"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

// ErrNotUsed says that a configuration file is not what counts, as was written.
var ErrNotUsed = errors.New("a configuration file has mistakes; what was in use before still is")

// Reload has the agent read its configuration files anew, and writes which those are. The error is [ErrNotUsed]
// where one of them does not count.
func Reload(ctx context.Context, w io.Writer, socket string, look output.Look) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	all, err := control.NewClient(socket).Reload(ctx)
	if err != nil {
		return refused(socket, err)
	}
	good, err := output.Reloaded(w, all.Config, all.Projects, look)
	if err == nil && !good {
		err = ErrNotUsed
	}
	return err
}
