package ask

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Port is what a command wants to know of a port.
type Port struct {
	VM   string // the only one; empty for all
	UDP  bool
	JSON bool
	Look output.Look
	UTF8 bool // whether the terminal has more than ASCII
}

// target reads a port of the command line.
func (o *Port) target(text string) (control.Target, error) {
	var port Number
	if err := port.Set(text); err != nil {
		return control.Target{}, output.Misuse(err)
	}
	t := control.Target{VM: o.VM, Proto: "tcp", Port: uint16(port)}
	if o.UDP {
		t.Proto = "udp"
	}
	return t, nil
}

// explain is the command that tells why the port does not answer.
func (o *Port) explain(socket string, port uint16) string {
	words := []string{"explain", strconv.Itoa(int(port))}
	if o.VM != "" {
		words = append(words, "--vm", output.Clean(o.VM))
	}
	if o.UDP {
		words = append(words, "--udp")
	}
	return Command(socket, words...)
}

// Explain writes step by step why a port answers or does not.
func (o *Port) Explain(ctx context.Context, w io.Writer, socket, port string) error {
	t, err := o.target(port)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	all, err := control.NewClient(socket).Explain(ctx, t)
	if refused, ok := errors.AsType[*control.RefusedError](err); ok && refused.Status == http.StatusNotFound {
		return NoVM(ctx, socket, o.VM)
	}
	if err != nil {
		return Advise(socket, err)
	}
	if o.JSON {
		return indented(w, struct {
			Explanations []status.Explanation `json:"explanations"`
		}{all})
	}
	return output.Explanations(w, all, o.UTF8, o.Look)
}
