package ask

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os/exec"

	"github.com/rum-vm/rum-agent/agent-host/browser"
	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

// Dashboard opens the agent's page in the user's browser or, with print, writes a link to it.
func Dashboard(ctx context.Context, stdout, stderr io.Writer, socket string, print bool) error {
	link, err := control.NewClient(socket).Link(ctx)
	if refused, ok := errors.AsType[*control.RefusedError](err); ok && !errors.Is(err, fs.ErrPermission) {
		hint := "run the agent with another port: rum-host-agent run --http localhost:7071; or end what has this one, and it is taken over"
		if refused.Status == http.StatusNotFound {
			hint = "run it with an address instead: rum-host-agent run --http localhost:7070"
		}
		return output.Advise(errors.New(refused.Text), hint)
	}
	if err != nil {
		return Advise(socket, err)
	}
	if print {
		_, err := fmt.Fprintln(stdout, link)
		return err
	}
	again := "open the link that this prints: " + Command(socket, "dashboard", "--print")
	file, err := browser.WriteRedirect(link)
	if err != nil {
		return output.Advise(err, again)
	}
	err = browser.Open(ctx, "file://"+file, stderr)
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return output.Advise(err, "install xdg-utils; or "+again)
	case err != nil:
		return output.Advise(fmt.Errorf("xdg-open: %w", err), again)
	}
	return nil
}
