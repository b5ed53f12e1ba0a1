package portwatch_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

func onlyProgram(t *testing.T, s *portwatch.Scanner) portlist.Program {
	t.Helper()
	got, err := s.Scan()
	if err != nil || len(got) != 1 {
		t.Fatalf("%d listeners, %v; want one", len(got), err)
	}
	return got[0].Program
}

func TestAProgramIsItsCommandLineDirectoryAndHome(t *testing.T) {
	for _, row := range []struct {
		name, cmdline, cwd   string
		wantCommand, wantCwd string
	}{
		{"words", "node\x00server.js\x00--port\x003000\x00", "/srv/shop", "node server.js --port 3000", "/srv/shop"},
		{"none", "", "", "", ""},
		{"control characters", "sh\x00-c\x00a\nb\x1b\xff\x00", "/", "sh -c a?b??", "/"},
		{"a long command line", strings.Repeat("é", 400) + "\x00", "/a", strings.Repeat("é", portlist.MaxCommand/2), "/a"},
		{"the longest directory", "x", "/" + strings.Repeat("d", portlist.MaxDirectory-1), "x", "/" + strings.Repeat("d", portlist.MaxDirectory-1)},
		{"a directory that is longer", "x", "/" + strings.Repeat("d", portlist.MaxDirectory), "x", ""},
	} {
		root := fakeProc(t)
		write(t, root, "net/tcp", header4+listening(80, 700))
		addProcess(t, root, 90, 1, "node", 700)
		write(t, root, "90/cmdline", row.cmdline)
		write(t, root, "90/status", "Name:\tnode\nUid:\t0\t0\t0\t0\n")
		if row.cwd != "" {
			symlink(t, row.cwd, filepath.Join(root, "90/cwd"))
		}
		got := onlyProgram(t, &portwatch.Scanner{Proc: root})
		if got.Command() != row.wantCommand || got.Dir() != row.wantCwd || got.Home() != "/root" {
			t.Errorf("%s: %q in %q of %q", row.name, got.Command(), got.Dir(), got.Home())
		}
	}
}

func TestAProcessThatBecomesAnotherProgramIsReadAgain(t *testing.T) {
	root := fakeProc(t)
	write(t, root, "net/tcp", header4+listening(80, 700))
	addProcess(t, root, 90, 1, "sh", 700)
	write(t, root, "90/cmdline", "sh\x00start\x00")
	s := &portwatch.Scanner{Proc: root}
	if got := onlyProgram(t, s).Command(); got != "sh start" {
		t.Errorf("%q", got)
	}
	write(t, root, "90/comm", "node\n")
	write(t, root, "90/cmdline", "node\x00server.js\x00")
	if got := onlyProgram(t, s).Command(); got != "node server.js" {
		t.Errorf("%q", got)
	}
}

func TestAProgramOfThisMachineIsKnown(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var s portwatch.Scanner
	defer s.Close()
	got, _ := find(t, &s, "tcp", unmapped(l.Addr().String()))
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got.Program.Dir() != dir || !strings.HasPrefix(got.Program.Command(), os.Args[0]) {
		t.Errorf("%q in %q", got.Program.Command(), got.Program.Dir())
	}
}

// A command line may hold a password.
func TestAProgramIsNeverPrinted(t *testing.T) {
	l := portlist.Listener{Proto: "tcp", Program: portlist.NewProgram("secret", "/secret", "/secret")}
	inJSON, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{string(inJSON), fmt.Sprint(l), fmt.Sprintf("%+v %#v", l, l), fmt.Sprint([]portlist.Listener{l}, &l)} {
		if strings.Contains(text, "secret") {
			t.Error(text)
		}
	}
}
