package doctor

import (
	"context"
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// there is what the host of the VM finds. It needs no agent of its own but the relay, nor what that serves ports with.
func there(ctx context.Context, x *exam) []status.Check {
	all, err := x.There(ctx)
	if err != nil {
		return []status.Check{ill(x.Host, hintOf(err), "%v", err)}
	}
	ofAgents := []string{nameAgent, namePage, nameConfig, namePorts, nameLoopback, nameKeys}
	return slices.DeleteFunc(all, func(c status.Check) bool {
		return slices.ContainsFunc(ofAgents, func(name string) bool { return c.Name == x.Host+"/"+name })
	})
}
