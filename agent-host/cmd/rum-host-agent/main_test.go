package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/test/rumproject"
	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

func TestMain(m *testing.M) {
	ownnet.Enter()
	testscript.Main(m, map[string]func(){
		"rum-host-agent": main,
		"fake-guest":     fakeGuest,
		"fake-agent":     fakeAgent,
		"crowd":          crowd,
		"web":            web,
	})
}

// TestScripts runs the promises of the command line, one file each.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Vars = append(env.Vars, ownnet.Env)
			env.Setenv("GORACE", "atexit_sleep_ms=0") // the detector would sleep a second at each exit
			env.Setenv("PORT", strconv.Itoa(int(ownnet.FreePort(t))))
			env.Setenv("XDG_RUNTIME_DIR", env.WorkDir)
			env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, "state"))
			env.Setenv("XDG_DATA_HOME", filepath.Join(env.WorkDir, "data"))
			env.Defer(func() { goOn(env.WorkDir) })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":    code,
			"until":   until,
			"project": project,
		},
	})
}

// goOn continues what a script stopped, whose process IDs are in files of dir: of one that failed meanwhile the end is
// waited for.
func goOn(dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "*pid"))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	}
}

// code N COMMAND... runs a command that must exit with code N. What it prints on
// standard error is then in the file stderr.txt.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command [args...]")
	}
	out, err := command(ts, args[1:])
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	ts.Check(os.WriteFile(ts.MkAbs("stderr.txt"), out.err.Bytes(), 0o600))
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s\n%s", got, args[0], out.err.String())
	}
}

// until TEXT COMMAND... runs a command again and again until it prints TEXT, or
// with ! until it no longer does.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: [!] until text command [args...]")
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		out, _ := command(ts, args[1:])
		if strings.Contains(out.out.String(), args[0]) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q: %s%s", args[0], out.out.String(), out.err.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// project FILE makes the work directory that rum has for a rum.toml.
func project(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: project FILE")
	}
	path, err := filepath.EvalSymlinks(ts.MkAbs(args[0]))
	ts.Check(err)
	_, err = rumproject.WorkDir(filepath.Join(ts.Getenv("XDG_DATA_HOME"), "rum"), path)
	ts.Check(err)
}

type printed struct{ out, err bytes.Buffer }

func command(ts *testscript.TestScript, args []string) (*printed, error) {
	path, err := exec.LookPath(args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, path, args[1:]...)
	c.Env = []string{"XDG_RUNTIME_DIR=" + ts.Getenv("XDG_RUNTIME_DIR"), "PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("HOME"),
		"XDG_STATE_HOME=" + ts.Getenv("XDG_STATE_HOME"), ownnet.Env}
	c.Dir = ts.MkAbs(".")
	var out printed
	c.Stdout, c.Stderr = &out.out, &out.err
	return &out, c.Run()
}

// web ADDRESS|unix:PATH [tls] is a web server where / is there, /broken fails, /slow never answers, and nothing else is.
func web() {
	http.HandleFunc("/{$}", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "broken", http.StatusInternalServerError) })
	http.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	network, addr := "tcp", os.Args[1]
	if path, is := strings.CutPrefix(addr, "unix:"); is {
		network, addr = "unix", path
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{}}
	if len(os.Args) > 2 {
		s.StartTLS()
	} else {
		s.Start()
	}
	select {}
}

// fakeGuest SOCKET PORT [VERSION [KEYFILE]] is a guest agent that announces a port
// on 127.0.0.2 whose owner has a hostile name. Its process ID is in SOCKET.pid.
func fakeGuest() {
	port, _ := strconv.Atoi(os.Args[2])
	config := tunnel.Config{AgentVersion: "fake"}
	if len(os.Args) > 3 {
		config.AgentVersion = os.Args[3]
	}
	if len(os.Args) > 4 {
		key, err := keyfile.Read(os.Args[4])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		config.Key = key[:]
	}
	guest(config, port, 1)
}

// fakeAgent SOCKET FILE is an agent of the user nobody, which says that FILE is its VM's.
func fakeAgent() {
	l, err := net.Listen("unix", os.Args[1])
	if err == nil {
		err = errors.Join(syscall.Setgid(65534), syscall.Setuid(65534))
	}
	if err == nil { // whoever calls it last is the one who listens
		rc, _ := l.(*net.UnixListener).SyscallConn()
		_ = rc.Control(func(fd uintptr) { err = syscall.Listen(int(fd), 128) })
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	http.HandleFunc("/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(status.Status{Version: "fake", VMs: []status.VM{{Name: "dev", Config: &status.Config{File: os.Args[2]}}}})
	})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { _ = l.Close() })
	_ = http.Serve(l, nil)
}

// crowd SOCKET FIRST N is a guest agent that announces so many ports on 127.0.0.2, from a first one on.
func crowd() {
	first, _ := strconv.Atoi(os.Args[2])
	n, _ := strconv.Atoi(os.Args[3])
	guest(tunnel.Config{AgentVersion: "fake"}, first, n)
}

// guest announces ports from a first one on until it is told to stop.
func guest(config tunnel.Config, first, n int) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	config.Log = log
	announcement := announce.Announcement{Generation: 1}
	for i := range n {
		announcement.Listeners = append(announcement.Listeners, portlist.Listener{
			Proto: "tcp", Addr: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), uint16(first+i)), Process: "web\x1b[31m[1]",
		})
	}
	s := &tunnel.Server{Config: config, Source: func() (announce.Announcement, <-chan struct{}) {
		return announcement, nil
	}}
	l, err := endpoint.Listen(endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: os.Args[1]}, nil, log)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := os.WriteFile(os.Args[1]+".pid", []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	_ = s.Serve(ctx, l)
}
