package control_test

import (
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// listenAs listens at a path as a user, with the rights to a file there that root has.
func listenAs(t *testing.T, path string, uid int) net.Listener {
	t.Helper()
	runtime.LockOSThread() // only this thread is that user, and again root behind it
	defer runtime.UnlockOSThread()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	as := func(uid int) {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			t.Fatal(errno)
		}
	}
	as(uid)
	err = unix.Listen(fd, 16)
	as(os.Getuid())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Who may name files that this user changes has to be this user.
func TestAnAgentOfAnotherUserIsNotAskedWhereOwnIsWanted(t *testing.T) {
	path := socket(t)
	serve(t, path, status.Status{Version: "1"})
	if st, err := control.NewOwnClient(path).Status(t.Context()); err != nil || st.Version != "1" {
		t.Errorf("my own: %+v, %v", st, err)
	}
	if os.Geteuid() != 0 {
		t.Skip("a socket of another user: needs root")
	}
	path = socket(t)
	l := listenAs(t, path, 65534)
	if err := os.Chown(path, 0, 0); err != nil { // which says nothing
		t.Fatal(err)
	}
	var asked atomic.Int32
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write([]byte(`{"version": "2"}`))
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	defer func() { _ = srv.Close(); <-done }()
	_, err := control.NewOwnClient(path).Status(t.Context())
	stranger, ok := errors.AsType[*control.StrangerError](err)
	if !ok || stranger.UID != 65534 || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), path) || asked.Load() != 0 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
	if _, err := control.NewOwnClient(path).Connect(t.Context(), "dev", 80, control.Connection{}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("connect: %v", err)
	}
	if st, err := control.NewClient(path).Status(t.Context()); err != nil || st.Version != "2" {
		t.Errorf("anybody's: %+v, %v", st, err)
	}
}
