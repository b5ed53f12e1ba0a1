package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rum-vm/rum-agent/test/ownnet"
)

func TestMain(m *testing.M) {
	ownnet.Enter()
	testscript.Main(m, map[string]func(){"rum-guest-agent": main})
}

// TestScripts holds the program to what it promises on the command line. None
// of them may listen on vsock: where this runs is not ours to listen.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Vars = append(env.Vars, ownnet.Env)
			env.Setenv("GORACE", "atexit_sleep_ms=0") // the detector would sleep a second at each exit
			ln, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				return err
			}
			env.Defer(func() { ln.Close() })
			env.Setenv("LISTENING", ln.Addr().String())
			flow, err := net.ListenPacket("udp4", "127.0.0.1:0")
			if err != nil {
				return err
			}
			env.Defer(func() { flow.Close() })
			env.Setenv("FLOW", flow.LocalAddr().String())

			// systemd's end of the readiness protocol (sd_notify(3)). Its path
			// has to fit a socket address, so it is not in the work directory.
			dir, err := os.MkdirTemp("", "notify")
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(dir) })
			path := filepath.Join(dir, "s")
			notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			if err != nil {
				return err
			}
			env.Defer(func() { notify.Close() })
			env.Setenv("NOTIFY", path)
			env.Setenv("SOCKET", filepath.Join(dir, "agent"))
			env.Values[notifyKey{}] = notify
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":     exits,
			"notified":  notified,
			"terminate": terminate,
		},
	})
}

// exits runs a program and demands an exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG...]")
	}
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if want := args[0]; strconv.Itoa(code) != want {
		ts.Fatalf("exit code %d, want %s", code, want)
	}
}

// terminate sends SIGTERM to what runs in the background.
func terminate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: terminate")
	}
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGTERM))
	}
}

type notifyKey struct{}

// notified waits until the program has told systemd exactly the argument.
func notified(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: notified MESSAGE")
	}
	conn := ts.Value(notifyKey{}).(*net.UnixConn)
	ts.Check(conn.SetReadDeadline(time.Now().Add(20 * time.Second)))
	buf := make([]byte, 256)
	n, err := conn.Read(buf)
	ts.Check(err)
	if got := string(buf[:n]); got != args[0] {
		ts.Fatalf("systemd was told %q, want %q", got, args[0])
	}
}
