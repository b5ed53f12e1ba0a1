package ask

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Watch is how events are to be shown.
type Watch struct {
	VM     string // the only one; empty for all
	Since  string // a duration or a cursor; empty for what happens from now on
	JSON   bool
	Colour bool
}

// Run writes events until ctx ends, which is no error.
func (o *Watch) Run(ctx context.Context, w, stderr io.Writer, socket string) error {
	if err := checkSince(o.Since); err != nil {
		return output.Misuse(err)
	}
	if o.VM != "" {
		st, err := Status(ctx, socket, status.Query{Rows: 1})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(st.VMs, func(vm status.VM) bool { return vm.Name == o.VM }) {
			fmt.Fprintf(stderr, "there is no VM %q now; what happens to it is shown when there is\n", o.VM)
		}
	}
	err := control.NewClient(socket).Events(ctx, o.VM, o.Since, func(line []byte) error {
		if o.JSON {
			_, err := fmt.Fprintf(w, "%s\n", line)
			return err
		}
		var e events.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("read an event of the agent: %w", err)
		}
		_, err := io.WriteString(w, output.Event(e, time.Now(), o.Colour)+"\n")
		return err
	})
	if errors.Is(err, control.ErrEnded) {
		return output.Advise(err, "start it again with: "+Command(socket, "run"))
	}
	return Advise(socket, err)
}

func checkSince(since string) error {
	if since == "" {
		return nil
	}
	if _, err := strconv.ParseUint(since, 10, 64); err == nil {
		return nil
	}
	if d, err := time.ParseDuration(since); err != nil || d < 0 {
		return fmt.Errorf("--since %q: want a duration, such as 10m, or a cursor", since)
	}
	return nil
}
