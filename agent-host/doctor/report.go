package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Report writes what an examination finds, as JSON or for people. The error says that something is wrong.
func (d *Doctor) Report(ctx context.Context, w io.Writer, asJSON, utf8 bool, look output.Look) error {
	all := d.Examine(ctx)
	wrong := 0
	for _, c := range all {
		if !c.OK {
			wrong++
		}
	}
	var err error
	if asJSON {
		out := json.NewEncoder(w)
		out.SetIndent("", "  ")
		out.SetEscapeHTML(false)
		err = out.Encode(struct {
			Well   bool           `json:"well"`
			Checks []status.Check `json:"checks"`
		}{wrong == 0, all})
	} else {
		err = output.Checks(w, all, utf8, look)
	}
	if err != nil || wrong == 0 {
		return err
	}
	return output.Advise(fmt.Errorf("%d of %d checks found something wrong", wrong, len(all)), "do what is said at the first of them, and ask again")
}
