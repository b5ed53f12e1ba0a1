package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	guestagent "github.com/rum-vm/rum-agent/agent-guest"
)

const openHelp = `rum-guest-agent open URL has a page opened in the browser of the host's user, if he has allowed
that for this VM: [[vm]] and open_urls in rum.toml there. Programs that open pages do it by way
of BROWSER=/usr/local/bin/rum-open, which an installed agent sets where it is not set.

It is 0 where the page was opened or the user is asked, 1 where it was refused, and 3 where
there is no host to ask.
`

// open has a page opened by the host.
func open(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	} else if len(args) == 1 && (args[0] == "--help" || args[0] == "-h") {
		_, err := io.WriteString(stdout, openHelp)
		return err
	}
	if len(args) != 1 || args[0] == "" {
		return misuse(fmt.Errorf("open takes one URL, and there are %d", len(args)))
	}
	a, err := guestagent.OpenURL(ctx, cmp.Or(os.Getenv(statusDir), guestagent.StatusDir), args[0])
	switch {
	case errors.Is(err, guestagent.ErrNotRunning):
		return &problem{err: err, absent: true, hint: notRunningHint}
	case err != nil:
		return err
	case a.Outcome == guestagent.Opened:
		_, err = fmt.Fprintf(stdout, "opened on the host: %s\n", a.Text)
	case a.Outcome == guestagent.Asked:
		_, err = fmt.Fprintf(stdout, "asked: whether to open %s, its user is to say on the host's page (rum-host-agent dashboard there) or desktop\n", a.Text)
	case a.Outcome == guestagent.NobodyToAsk:
		err = &problem{err: errors.New(a.Text), absent: true, hint: "open it by hand: " + args[0]}
	default:
		err = advise(fmt.Errorf("refused: %s", a.Text), "open it by hand: "+args[0])
	}
	return err
}
