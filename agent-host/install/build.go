package install

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/cloudinit"
)

// sameBuild is an error for a guest agent that is known to be of another build than this program, which is of a version. An
// order names that version, and a guest refuses a binary that has another, but not before all of it has come.
func sameBuild(ctx context.Context, agent cloudinit.Agent, version string) error {
	own, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	its, err := buildinfo.Read(bytes.NewReader(agent.Binary))
	if err != nil {
		return fmt.Errorf("guest agent for %s: %w", agent.Arch, err)
	}
	what := otherBuild(its, own)
	if what == "" && agent.Arch == runtime.GOARCH {
		what = otherVersion(ctx, agent.Binary, version)
	}
	if what != "" {
		return output.Advise(fmt.Errorf("the guest agent for %s is of another build than this program: %s", agent.Arch, what),
			"take the one that was built with it, or have it taken by the rum-host-agent of its own build")
	}
	return nil
}

// versionTimeout bounds how long a guest agent may take to say its version.
const versionTimeout = 10 * time.Second

// otherVersion says which version a program of this machine's says that it has, where that is another; what was built with
// -trimpath has no record of it. Empty for one that says none, which the guest will ask as well.
func otherVersion(ctx context.Context, binary []byte, version string) string {
	fd, err := unix.MemfdCreate("rum-guest-agent", unix.MFD_CLOEXEC)
	if err != nil {
		return ""
	}
	program := os.NewFile(uintptr(fd), "rum-guest-agent")
	defer program.Close()
	if _, err := program.Write(binary); err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/fd/3", "--version")
	cmd.ExtraFiles = []*os.File{program}
	cmd.WaitDelay = time.Second
	said, err := cmd.Output()
	its, ok := strings.CutPrefix(strings.TrimSpace(string(said)), "rum-guest-agent ")
	if err != nil || !ok || its == version {
		return ""
	}
	return fmt.Sprintf("version %s, and not %s", output.Clean(its), version)
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
