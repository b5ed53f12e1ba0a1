package vm

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// localShell is the host's end of a stream that a real sh reads, as in a guest.
func localShell(t *testing.T) *shell {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	guest, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	file, err := guest.(*net.UnixConn).File()
	if err != nil {
		t.Fatal(err)
	}
	guest.Close()
	sh := exec.Command("sh")
	sh.Stdin, sh.Stdout, sh.Stderr = file, file, file
	sh.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	file.Close()
	t.Cleanup(func() {
		conn.Close()
		syscall.Kill(-sh.Process.Pid, syscall.SIGKILL)
		sh.Wait()
	})
	return newShell(conn)
}

func watchdog(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestCommandOutputComesBackWhole(t *testing.T) {
	s, ctx := localShell(t), watchdog(t)
	for command, want := range map[string]string{
		"true":                      "",
		"printf 'no newline'":       "no newline",
		"echo out; echo err >&2":    "out\nerr\n",
		"printf '\\000\\377%s' $$x": "\x00\xff",
		"seq 20000 | tail -n 1":     "20000\n",
		"echo 'quote\"s $HOME'":     "quote\"s $HOME\n",
		"cat":                       "",
	} {
		got, err := s.run(ctx, command)
		if err != nil || !strings.HasPrefix(got, want) || (want == "" && got != "") {
			t.Errorf("%s: %q, %v, want %q", command, got, err, want)
		}
	}
	if got, err := s.run(ctx, "seq 200000"); err != nil || strings.Count(got, "\n") != 200000 {
		t.Errorf("long output: %d bytes, %v", len(got), err)
	}
}

func TestFailingCommandGivesItsStatusAndOutput(t *testing.T) {
	s, ctx := localShell(t), watchdog(t)
	var exit *ExitError
	if _, err := s.run(ctx, "echo why; exit 3"); !errors.As(err, &exit) || exit.Status != 3 || exit.Output != "why\n" {
		t.Errorf("got %v", err)
	}
}

func TestBackgroundProcessDoesNotHoldUpTheAnswer(t *testing.T) {
	s, ctx := localShell(t), watchdog(t)
	began := time.Now()
	if _, err := s.run(ctx, "sleep 5 & echo $!"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestAnswerToAnAbandonedCommandIsNotTakenForTheNext(t *testing.T) {
	s, ctx := localShell(t), watchdog(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err := s.run(short, "cat "+fifo+"; echo old; exit 9")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a command that hangs gave %v", err)
	}
	end, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	end.Close()
	if got, err := s.run(ctx, "echo new"); err != nil || got != "new\n" {
		t.Errorf("the next command gave %q, %v", got, err)
	}
}
