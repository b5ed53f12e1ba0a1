package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/agent-host/userconfig"
)

const (
	nameAgent  = "agent"
	namePage   = "page"
	nameConfig = "configuration"
	nameKeys   = "keys"
)

// hintOf is what an error says to do, its first line.
func hintOf(err error) string {
	p, ok := errors.AsType[*output.Problem](err)
	if !ok {
		return ""
	}
	hint, _, _ := strings.Cut(p.Hint, "\n")
	return hint
}

// agent tells whether one runs, and is of this build.
func agent(_ context.Context, x *exam) (all []status.Check) {
	st := x.agent
	switch {
	case errors.Is(x.agentErr, control.ErrNoAgent):
		text := "no agent runs: nothing is forwarded"
		for _, o := range control.Others(x.Socket) {
			all = append(all, ill(nameAgent, "see it with: "+ask.Seeing(o), "an agent of %s runs, and is not the one that is asked", ask.Of(o)))
			text = "no agent answers at " + x.Socket
		}
		if dir := filepath.Dir(x.Socket); !isDir(dir) {
			return append(all, ill(nameAgent, "set XDG_RUNTIME_DIR to a directory of this user, as a login does, or name a socket with --socket",
				"no agent can have its socket at %s: there is no directory %s", x.Socket, dir))
		}
		return append(all, ill(nameAgent, hintOf(x.agentErr), "%s", text))
	case x.agentErr != nil:
		return []status.Check{ill(nameAgent, hintOf(x.agentErr), "%v", x.agentErr)}
	case st.Version != x.Version:
		all = append(all, ill(nameAgent, fmt.Sprintf("end it, and start this one, with: kill %d && rum-host-agent run", st.PID),
			"the agent that runs (pid %d) is %s, and this program %s", st.PID, st.Version, x.Version))
	default:
		all = append(all, well(nameAgent, "%s runs, pid %d", st.Version, st.PID))
	}
	if st.Warning != "" {
		all = append(all, ill(nameAgent, "run it with more descriptors: ulimit -n 524288, or LimitNOFILE=524288 in its unit", "%s", st.Warning))
	}
	for _, d := range st.Discovery {
		if d.Error != "" && d.Host != "" {
			all = append(all, ill(nameAgent, "see what ssh says with: ssh "+d.Host+" rum-host-agent version", "it cannot ask %s: %s", d.Source, d.Error))
		} else if d.Error != "" {
			all = append(all, ill(nameAgent, "mend libvirt, and the agent goes on by itself", "it cannot ask %s: %s", d.Source, d.Error))
		}
	}
	if p := st.Page; p != nil && p.State != status.Active {
		all = append(all, ill(namePage, "run the agent at another port with: rum-host-agent run --http localhost:7071; or end what has this one, and it is taken over",
			"the page and the names of ports are not served: %s", p.Reason))
	}
	return all
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// configuration tells of files that are not used as they are.
func configuration(ctx context.Context, x *exam) (all []status.Check) {
	if x.agentErr != nil {
		file, err := userconfig.Open("", "")
		if err != nil {
			return []status.Check{ill(nameConfig, hintOf(err), "%v", err)}
		}
		all = []status.Check{well(nameConfig, "there is no rum.toml, and ports are forwarded to the same ones here")}
		if file.Found() {
			all = []status.Check{well(nameConfig, "%s is good", file.Path())}
		}
		if errors.Is(x.agentErr, control.ErrNoAgent) && len(control.Others(x.Socket)) == 0 {
			all = append(all, x.ruledPorts(ctx)...)
		}
		return all
	}
	for _, c := range append([]status.Config{x.agent.Config}, x.agent.Projects...) {
		if c.Error != "" && (x.VM == "" || c.VM == "" || c.VM == x.VM) {
			all = append(all, ill(nameConfig, "correct "+c.File, "%s", c.Error))
		}
	}
	for _, r := range x.agent.Refused {
		all = append(all, ill(nameConfig, r.Remedy, "no project is taken from %s: %s", r.Path, r.Reason))
	}
	if all == nil {
		all = append(all, well(nameConfig, "all files are used as they are"))
	}
	return append(all, x.ruledPorts(ctx)...)
}

// keyStore tells of keys that cannot be used.
func keyStore(_ context.Context, x *exam) (all []status.Check) {
	store, err := keys.Default()
	if err != nil {
		return []status.Check{ill(nameKeys, keys.Hint(x.VM, err), "%v", err)}
	}
	entries, err := store.List()
	if err != nil {
		return []status.Check{ill(nameKeys, keys.Hint(x.VM, err), "%v", err)}
	}
	for _, e := range entries {
		if e.Err != nil && (x.VM == "" || x.VM == e.Name) {
			all = append(all, ill(nameKeys, keys.Hint(e.Name, e.Err), "the key of %s: %v", e.Name, e.Err))
		}
	}
	if all == nil {
		all = append(all, well(nameKeys, "none of %d is damaged or open to others", len(entries)))
	}
	return all
}
