package integration

import (
	"errors"
	"flag"
	"fmt"
	"net"
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
	eventually(t, "the host's server", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:6379")
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	for name, addr := range map[string]string{
		"nginx": "0.0.0.0:80", "vite": "[::]:5173", "node": "127.0.0.1:9229", "redis": "0.0.0.0:6379",
	} {
		serve(t, s.guest.namespace, name, addr)
	}
	t.Setenv("XDG_RUNTIME_DIR", s.dir)
	s.host = &hostAgent{socket: filepath.Join(s.dir, "rum-host-agent.sock")}
	cmd := []string{"-C", s.dir, filepath.Join(bin, "rum-host-agent"), "run", "--config", rules, "--vm", "dev=unix:dev.sock,key=" + s.guest.key}
	run := func() {
		s.host.program = startBy(t, tool(t, "env", "coreutils"), cmd...)
		eventually(t, "the agent", func() bool {
			_, err := control.NewClient(s.host.socket).Status(t.Context())
			return err == nil
		})
		s.host.awaitForward(t, "dev", 80, "active", active)
		s.host.awaitForward(t, "dev", 5173, "active", active)
		s.host.awaitForward(t, "dev", 6379, "a claim", func(f status.Forward) bool {
			return f.State == status.Claim && strings.Contains(f.Reason, "redis-server") // which is looked for
		})
		s.host.awaitForward(t, "dev", 9229, "ignored", func(f status.Forward) bool { return f.State == status.Ignored })
		for _, port := range []int{80, 5173, 6379, 9229} { // names come after the ports
			s.host.awaitForward(t, "dev", port, "named", func(f status.Forward) bool { return f.Process != "" })
		}
	}
	// The guest knows the names a moment after the ports, and one that knows them tells both.
	run()
	s.host.stop(t)
	run()
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
	return strings.NewReplacer(s.dir, "/home/ann/shop", filepath.Join(bin, "rum-host-agent"), "/usr/local/bin/rum-host-agent",
		os.Getenv("XDG_STATE_HOME"), "/home/ann/.local/state").Replace(said)
}

// changing is what differs from one run to the next: times, durations, numbers of processes, addresses that
// come from a VM's identity, the build, and whether what has an address was found already when that was told.
var changing = regexp.MustCompile(`is in use|is held by \S+|\d{4}-\d\d-\d\dT?|\d\d:\d\d:\d\d(\.\d+)?Z?|\b[\d.]+ ?(ms|µs|s|m|h)\b|\[\d+\]|\bpid \d+|127\.(\d{2,3}|[1-9])\.\d+\.\d+|\(devel\)|agent \S+|[─-]{3,}`)

// late is the process of the server that is started last: its event waits for the name no
// longer than 10 ms, which may be too short where tests keep the machine busy.
var late = regexp.MustCompile(` +rails\[\d+\]`)

// settled is a text without what differs from one run to the next.
func settled(text string) string {
	return regexp.MustCompile(` +`).ReplaceAllString(changing.ReplaceAllString(late.ReplaceAllString(text, ""), "#"), " ")
}

// transcript cuts what a command has said off the lines below it: those that are indented,
// and what is empty between them, up to the next command.
func transcript(text string) (said, rest string) {
	end := 0
	for at := 0; at < len(text); {
		line, _, _ := strings.Cut(text[at:], "\n")
		if line != "" && !strings.HasPrefix(line, "    ") || strings.HasPrefix(line, "    $ ") {
			break
		}
		at += len(line) + 1
		if line != "" {
			end = at
		}
	}
	return text[:end], text[end:]
}

// indented is text as a block of Markdown.
func indented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimRight("    "+line, " \n") + "\n")
	}
	return b.String()
}

func TestTranscriptsAreWhatTheCommandsSay(t *testing.T) {
	text, err := os.ReadFile(commandsDoc)
	if err != nil {
		t.Fatal(err)
	}
	s := newStage(t)
	var written strings.Builder
	seen := 0
	for rest := string(text); rest != ""; {
		line, after, _ := strings.Cut(rest, "\n")
		written.WriteString(line + "\n")
		rest = after
		command, ok := strings.CutPrefix(line, "    $ ")
		if !ok {
			continue
		}
		seen++
		var had string
		had, rest = transcript(rest)
		said := indented(s.say(t, command))
		if settled(said) != settled(had) && !*update {
			t.Errorf("docs/commands.md has\n%s\n%s\nand the command says\n%s\ngo test ./test/integration -run Transcripts -update writes it anew", line, had, said)
		}
		written.WriteString(said)
	}
	if seen < 5 {
		t.Fatalf("docs/commands.md has %d transcripts", seen)
	}
	if *update {
		if err := os.WriteFile(commandsDoc, []byte(written.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
