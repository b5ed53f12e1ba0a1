package integration

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

var update = flag.Bool("update", false, "write the transcripts of docs/commands.md anew")

const commandsDoc = "../../docs/commands.md"

// serve runs a server under the name of another program, in the guest or, where the
// namespace is nil, on the host.
func serve(t *testing.T, ns *namespace, name, addr string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), name) // the kernel calls a process by the last part of its path
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(link)
	cmd.Env = append(os.Environ(), asEcho+"="+addr)
	if ns == nil {
		err = cmd.Start()
	} else {
		ns.do(t, cmd.Start)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// stage is what docs/commands.md tells of: one VM, its servers and the host's.
type stage struct {
	dir   string // in which the commands are given
	guest *guestVM
	host  *hostAgent
	// before are what happens before a command is given, by that command.
	before map[string]func()
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{dir: t.TempDir(), guest: newGuest(t, "dev")}
	if err := os.Symlink(s.guest.socket, filepath.Join(s.dir, "dev.sock")); err != nil {
		t.Fatal(err)
	}
	rules := filepath.Join(s.dir, "rum.toml")
	if err := os.WriteFile(rules, []byte(`[[ports]]
guest = 80
host = 8080
label = "the shop"

[[ports]]
guest = 9229
ignore = true
`), 0o600); err != nil {
		t.Fatal(err)
	}
	serve(t, nil, "redis-server", "127.0.0.1:6379")
	for name, addr := range map[string]string{
		"nginx": "0.0.0.0:80", "vite": "[::]:5173", "node": "127.0.0.1:9229", "redis": "0.0.0.0:6379",
	} {
		serve(t, s.guest.namespace, name, addr)
	}
	t.Setenv("XDG_RUNTIME_DIR", s.dir)
	s.host = &hostAgent{socket: filepath.Join(s.dir, "rum-host-agent.sock")}
	cmd := []string{"-C", s.dir, filepath.Join(bin, "rum-host-agent"), "run", "--config", rules, "--vm", "dev=unix:dev.sock,key=" + s.guest.key}
	s.host.program = startBy(t, tool(t, "env", "coreutils"), cmd...)
	eventually(t, "the agent", func() bool {
		_, err := control.NewClient(s.host.socket).Status(t.Context())
		return err == nil
	})
	s.host.awaitForward(t, "dev", 80, "active", active)
	s.host.awaitForward(t, "dev", 5173, "active", active)
	s.host.awaitForward(t, "dev", 6379, "a claim", func(f status.Forward) bool { return f.State == status.Claim })
	s.host.awaitForward(t, "dev", 9229, "ignored", func(f status.Forward) bool { return f.State == status.Ignored })
	for _, port := range []int{80, 5173, 6379, 9229} { // names come after the ports
		s.host.awaitForward(t, "dev", port, "named", func(f status.Forward) bool { return f.Process != "" })
	}
	s.before = map[string]func(){
		"rum-host-agent wait 3000 --timeout 30s": func() {
			time.AfterFunc(time.Second, func() { serve(t, s.guest.namespace, "rails", "0.0.0.0:3000") })
		},
	}
	return s
}

// say gives a command as it stands in the document, and returns what it says with its exit
// status where that is not 0.
func (s *stage) say(t *testing.T, command string) string {
	t.Helper()
	if before := s.before[command]; before != nil {
		before()
	}
	c := exec.CommandContext(t.Context(), "sh", "-c", command)
	c.Dir = s.dir
	c.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "COLUMNS=110", "LC_ALL=C.UTF-8", "NO_COLOR=1")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.WaitDelay = 5 * time.Second
	watchdog := time.AfterFunc(time.Minute, func() { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) })
	defer watchdog.Stop()
	out, err := c.CombinedOutput()
	said := strings.TrimRight(string(out), "\n")
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		said += fmt.Sprintf("\n(exit status %d)", exit.ExitCode())
	} else if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return strings.ReplaceAll(said, s.dir, "/home/ann/shop")
}

// changing is what differs from one run to the next: times, durations, numbers of processes, addresses that
// come from a VM's identity, the build.
var changing = regexp.MustCompile(`\d{4}-\d\d-\d\dT?|\d\d:\d\d:\d\d(\.\d+)?Z?|\b[\d.]+ ?(ms|µs|s|m|h)\b|\[\d+\]|\bpid \d+|127\.(\d{2,3}|[1-9])\.\d+\.\d+|\(devel\)|agent \S+|[─-]{3,}`)

// settled is a text without what differs from one run to the next.
func settled(text string) string {
	return regexp.MustCompile(` +`).ReplaceAllString(changing.ReplaceAllString(text, "#"), " ")
}

func TestTranscriptsAreWhatTheCommandsSay(t *testing.T) {
	text, err := os.ReadFile(commandsDoc)
	if err != nil {
		t.Fatal(err)
	}
	s := newStage(t)
	// A transcript is a command and the indented lines below it.
	transcript := regexp.MustCompile(`(?m)^    \$ (.*)\n((?:    (?:[^$\n].*)?\n|\n(?:    [^$\n]))*)`)
	seen := 0
	written := transcript.ReplaceAllStringFunc(string(text), func(block string) string {
		seen++
		found := transcript.FindStringSubmatch(block)
		said := s.say(t, found[1])
		var now strings.Builder
		fmt.Fprintf(&now, "    $ %s\n", found[1])
		for line := range strings.Lines(said) {
			now.WriteString(strings.TrimRight("    "+line, " \n") + "\n")
		}
		if settled(strings.TrimSpace(now.String())) != settled(strings.TrimSpace(block)) && !*update {
			t.Errorf("docs/commands.md has\n%s\nand the command says\n%s\ngo test ./test/integration -run Transcripts -update writes it anew", block, now.String())
		}
		return now.String()
	})
	if seen < 5 {
		t.Fatalf("docs/commands.md has %d transcripts", seen)
	}
	if *update {
		if err := os.WriteFile(commandsDoc, []byte(written), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
