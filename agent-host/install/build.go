package install

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"regexp"
	"runtime/debug"

	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/cloudinit"
)

// sameBuild is an error for a guest agent that is known to be of another build than this program. An order names the version
// of this program, and nobody in the VM can tell whether the binary has it.
func sameBuild(agent cloudinit.Agent) error {
	own, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	its, err := buildinfo.Read(bytes.NewReader(agent.Binary))
	if err != nil {
		return fmt.Errorf("guest agent for %s: %w", agent.Arch, err)
	}
	if what := otherBuild(its, own); what != "" {
		return output.Advise(fmt.Errorf("the guest agent for %s is of another build than this program: %s", agent.Arch, what),
			"take the one that was built with it, or that build's rum-host-agent")
	}
	return nil
}

// linked is the version among the linker's flags, which a build with -trimpath does not record.
var linked = regexp.MustCompile(`\bmain\.version=(\S+)`)

// otherBuild says what two builds differ in; empty where that is nothing which both record.
func otherBuild(its, own *debug.BuildInfo) string {
	recorded := func(b *debug.BuildInfo) map[string]string {
		r := map[string]string{}
		for _, s := range b.Settings {
			switch s.Key {
			case "vcs.revision":
				r["commit"] = s.Value
			case "vcs.modified":
				r["modified"] = s.Value
			case "-ldflags":
				if m := linked.FindStringSubmatch(s.Value); m != nil {
					r["version"] = m[1]
				}
			}
		}
		return r
	}
	a, b := recorded(its), recorded(own)
	for _, key := range []string{"version", "commit", "modified"} {
		if a[key] != "" && b[key] != "" && a[key] != b[key] {
			return fmt.Sprintf("%s %s, and not %s", key, a[key], b[key])
		}
	}
	return ""
}
