package ask

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// rivalTimeout bounds how long another agent is asked what it serves.
const rivalTimeout = 2 * time.Second

// Rivals tells of agents that run already beside one that is about to, at that socket, and serve VMs that it would:
// it would find those ports taken. Its own are known by their names, or nil where they are not known yet.
func Rivals(ctx context.Context, socket string, own []string) (warnings []string) {
	for _, o := range control.Others(socket) {
		text := fmt.Sprintf("an agent of %s runs already, and what it forwards is taken; see it with: %s", Of(o), Seeing(o))
		ctx, cancel := context.WithTimeout(ctx, rivalTimeout)
		st, err := control.NewClient(o.Socket).StatusOf(ctx, status.Query{Rows: 1})
		cancel()
		if err == nil {
			var names []string
			for _, vm := range st.VMs {
				if own == nil || slices.Contains(own, vm.Name) {
					names = append(names, output.Clean(vm.Name))
				}
			}
			if len(names) == 0 {
				continue
			}
			slices.Sort(names)
			text = fmt.Sprintf("an agent of %s runs already and serves %s: of those VMs every port would be a claim here; see it with: %s",
				Of(o), strings.Join(names[:min(len(names), maxNames)], ", "), Seeing(o))
		}
		warnings = append(warnings, text)
	}
	return warnings
}

// maxNames bounds how many VMs of another agent are named.
const maxNames = 10
