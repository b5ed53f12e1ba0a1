package install

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/projects"
	"github.com/rum-vm/rum-agent/agent-host/qga"
)

// overQGA runs scripts by the QEMU guest agent of a domain; p is the project that it is of, nil for none.
func overQGA(domain, uri string, p *projects.Project) way {
	return way{to: domain, hint: "what went wrong is said above", run: func(ctx context.Context, script []byte, stdout, stderr io.Writer) error {
		conn, err := libvirt.Open(ctx, uri)
		if err != nil {
			return output.Hinted(err, libvirt.Hint(err))
		}
		defer conn.Close()
		if p != nil {
			dom, err := conn.Find(ctx, domain)
			if err != nil {
				return output.Hinted(err, libvirt.Hint(err))
			}
			if err := isOf(dom, p); dom.State != libvirt.Off && err != nil {
				return err
			}
		}
		said, err := qga.Run(ctx, conn, domain, script, newProgress(stderr, len(script)).sent)
		writeLines(stdout, said.Out)
		writeLines(stderr, said.Err)
		if err != nil {
			return output.Hinted(err, libvirt.Hint(err))
		}
		if said.Exit != 0 {
			return fmt.Errorf("exit status %d", said.Exit)
		}
		return nil
	}}
}

// writeLines writes what came from a guest.
func writeLines(w io.Writer, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintln(w, output.CleanError(strings.TrimRight(line, "\r\n")))
	}
}
