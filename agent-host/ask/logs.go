package ask

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

// Logs is which lines of a guest agent's log are to be shown.
type Logs struct {
	VM     string
	Lines  uint32 // at most the last so many
	Follow bool   // go on with what comes later
}

// Run writes the lines, as they are safe to print, and unless they are followed no more than were asked for, whatever the
// guest sends. An end of ctx is no error where they are followed.
func (o *Logs) Run(ctx context.Context, w io.Writer, socket string) error {
	log, err := control.NewClient(socket).Log(ctx, o.VM, o.Lines, o.Follow)
	if err != nil {
		return GuestRefused(ctx, socket, o.VM, err)
	}
	defer log.Close()
	lines := bufio.NewReaderSize(log, 16<<10)
	for n := uint32(0); o.Follow || n < o.Lines; n++ {
		line, isPrefix, err := lines.ReadLine()
		switch {
		case ctx.Err() != nil && o.Follow:
			return nil
		case ctx.Err() != nil:
			return errors.New("interrupted")
		case errors.Is(err, io.EOF) && !o.Follow:
			return nil
		case err != nil:
			return output.Advise(fmt.Errorf("the log of %s was cut: its agent, or the one here, has ended or is too slow", o.VM), "see which with: "+Command(socket, "status", o.VM))
		}
		if _, err := fmt.Fprintln(w, output.CleanError(string(line))); err != nil {
			return err
		}
		for isPrefix && err == nil { // which no agent's lines are
			_, isPrefix, err = lines.ReadLine()
		}
	}
	return nil
}

// GuestRefused tells why a guest agent does not do what a command wants; of what the agent here says of it, the second line
// is what to do. A command at its end lacks the socket, which the agent does not know the name of that is used here.
func GuestRefused(ctx context.Context, socket, vm string, err error) error {
	r, ok := errors.AsType[*control.RefusedError](err)
	switch {
	case ok && r.Status == http.StatusNotFound:
		return NoVM(ctx, socket, vm)
	case ok && r.Status == http.StatusBadGateway:
		what, remedy, _ := strings.Cut(r.Text, "\n")
		if strings.Contains(remedy, "rum-host-agent ") {
			remedy += SocketFlag(socket)
		}
		return output.Hinted(errors.New(what), remedy)
	}
	return refused(socket, err)
}
