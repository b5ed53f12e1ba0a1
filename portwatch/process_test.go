package portwatch_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rum-vm/rum-agent/portwatch"
)

func onlyProcess(t *testing.T, s *portwatch.Scanner) string {
	t.Helper()
	got, err := s.Scan()
	if err != nil || len(got) != 1 {
		t.Fatalf("got %v, %v; want one listener", got, err)
	}
	return got[0].Process
}

func TestTheOwnerOfASharedSocketIsTheOldestThatBelongs(t *testing.T) {
	const inode = 700
	for name, tc := range map[string]struct {
		add  func(t *testing.T, root string)
		want string
	}{
		"one process": {func(t *testing.T, root string) {
			addProcess(t, root, 1, 0, "systemd", 1, 2)
			addProcess(t, root, 812, 1, "nginx", 3, inode)
		}, "nginx[812]"},
		"master and workers": {func(t *testing.T, root string) {
			addProcess(t, root, 812, 1, "nginx", inode)
			addProcess(t, root, 813, 812, "nginx", inode)
			addProcess(t, root, 814, 812, "nginx", 9, inode)
		}, "nginx[812]"},
		"activated by systemd": {func(t *testing.T, root string) {
			addProcess(t, root, 1, 0, "systemd", inode)
			addProcess(t, root, 500, 1, "sshd", inode)
		}, "sshd[500]"},
		"waiting in systemd": {func(t *testing.T, root string) {
			addProcess(t, root, 1, 0, "systemd", inode)
		}, "systemd[1]"},
		"a shell that does not hold it": {func(t *testing.T, root string) {
			addProcess(t, root, 90, 1, "bash")
			addProcess(t, root, 91, 90, "python3", inode)
		}, "python3[91]"},
		"a loop of parents": {func(t *testing.T, root string) {
			addProcess(t, root, 90, 91, "a", inode)
			addProcess(t, root, 91, 90, "b", inode)
		}, "b[91]"},
		"control characters in the name": {func(t *testing.T, root string) {
			addProcess(t, root, 90, 1, "a\x1b[2J\xffé"+strings.Repeat("ü", 40), inode)
		}, "a?[2J?é" + strings.Repeat("ü", 28) + "[90]"},
	} {
		t.Run(name, func(t *testing.T) {
			root := fakeProc(t)
			write(t, root, "net/tcp", header4+listening(80, inode))
			tc.add(t, root)
			if got := onlyProcess(t, &portwatch.Scanner{Proc: root}); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestAnOwnerIsSearchedAFewTimesAndThenNoMore(t *testing.T) {
	const tries = 3
	for seenBy := 1; seenBy <= tries+1; seenBy++ {
		t.Run(fmt.Sprintf("appears before scan %d", seenBy), func(t *testing.T) {
			root := fakeProc(t)
			write(t, root, "net/tcp", header4+listening(80, 700))
			s := &portwatch.Scanner{Proc: root}
			for range seenBy - 1 {
				if got := onlyProcess(t, s); got != "" {
					t.Fatalf("got %q before the process is there", got)
				}
			}
			addProcess(t, root, 90, 1, "late", 700)
			want := "late[90]"
			if seenBy > tries {
				want = ""
			}
			if got := onlyProcess(t, s); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestTheNameIsThatOfAProcessThatHoldsTheSocketNow(t *testing.T) {
	root := fakeProc(t)
	write(t, root, "net/tcp", header4+listening(80, 700))
	addProcess(t, root, 90, 1, "launcher", 7, 700)
	addProcess(t, root, 95, 90, "server", 700)
	s := &portwatch.Scanner{Proc: root}
	want := func(name string) {
		t.Helper()
		if got := onlyProcess(t, s); got != name {
			t.Errorf("got %q, want %q", got, name)
		}
	}
	want("launcher[90]")
	// It goes on, and has another file where the socket was.
	remove(t, filepath.Join(root, "90/fd/4"))
	symlink(t, "socket:[71]", filepath.Join(root, "90/fd/4"))
	want("server[95]")
	// It becomes another program.
	write(t, root, "95/comm", "worker\n")
	want("worker[95]")
	// It ends.
	remove(t, filepath.Join(root, "95"))
	addProcess(t, root, 96, 1, "heir", 700)
	want("heir[96]")
	remove(t, filepath.Join(root, "96"))
	want("")
	// The same address with another socket is another owner.
	write(t, root, "net/tcp", header4+listening(80, 701))
	addProcess(t, root, 91, 1, "second", 701)
	want("second[91]")
}

// A daemon that forks and exits, as they all do: what is named has ended.
func TestADaemonIsNamedAndNotTheParentThatStartedIt(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	// The shell holds the socket, and then only what it has left behind.
	shell := exec.Command("sh", "-c", "sleep 60 & echo $!; read line")
	shell.ExtraFiles = []*os.File{file}
	stdin, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := shell.StdoutPipe()
	if err == nil {
		err = shell.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(stdout, &pid); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(pid, syscall.SIGKILL) }()
	for comm := ""; comm != "sleep"; { // which the child is a moment after it was made
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			t.Fatal(err)
		}
		comm = strings.TrimSpace(string(text))
	}
	addr := unmapped(l.Addr().String())
	var s portwatch.Scanner
	defer s.Close()
	name := func() string {
		got, _ := find(t, &s, "tcp", addr)
		return got.Process
	}
	if got := name(); got != self() { // the shell's parent, which has it too
		t.Errorf("got %q, want %q", got, self())
	}
	_ = file.Close()
	_ = l.Close()
	if got, want := name(), fmt.Sprintf("sh[%d]", shell.Process.Pid); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	_ = stdin.Close()
	_ = shell.Wait()
	if got, want := name(), fmt.Sprintf("sleep[%d]", pid); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
