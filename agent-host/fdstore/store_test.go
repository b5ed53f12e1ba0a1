package fdstore_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/fdstore"
	"github.com/rum-vm/rum-agent/agent-host/systemd"
)

// kernelMax is how many descriptors the kernel takes in a message: SCM_MAX_FD of linux/net/scm.h.
const kernelMax = 253

// received is a message as systemd gets it.
type received struct {
	fields map[string]string
	files  []*os.File
}

// hear gives what comes at a notification socket until the test ends.
func hear(t *testing.T) <-chan received {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	heard, done := make(chan received, 4096), make(chan struct{})
	go func() {
		defer close(done)
		buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*kernelMax))
		for {
			n, noob, _, _, err := conn.ReadMsgUnix(buf, oob)
			if err != nil {
				return
			}
			m := received{fields: make(map[string]string)}
			for line := range strings.Lines(string(buf[:n])) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				m.fields[key] = value
			}
			if all, err := unix.ParseSocketControlMessage(oob[:noob]); err == nil {
				for i := range all {
					fds, _ := unix.ParseUnixRights(&all[i])
					for _, fd := range fds {
						unix.CloseOnExec(fd)
						m.files = append(m.files, os.NewFile(uintptr(fd), m.fields["FDNAME"]))
					}
				}
			}
			heard <- m
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return heard
}

// TestAFewHundredListenersAreKeptByEachMessage has 600 that begin to listen while systemd is slow, as many as three
// messages take. Their names count the messages, and whose they are is in a file without a name.
func TestAFewHundredListenersAreKeptByEachMessage(t *testing.T) {
	heard := hear(t)
	slow := make(chan struct{})
	var waiting sync.Once
	begun := make(chan struct{})
	send := func(state string, fds ...int) error {
		waiting.Do(func() { close(begun) })
		<-slow
		return systemd.Notify(state, fds...)
	}
	store := fdstore.New(send, nil, time.Minute, slog.New(slog.DiscardHandler))
	const listeners = 600
	want := make(map[fdstore.Place]string)
	for i := range listeners {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		raw, err := l.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		p := fdstore.Place{Proto: "unix", At: path}
		want[p] = "vm" + strconv.Itoa(i%3)
		if !store.Keep(p, want[p], raw) {
			t.Fatalf("listener %d is not kept", i)
		}
		if i == 0 {
			<-begun // the first goes alone, and all others meanwhile
		}
	}
	close(slow)
	store.Close()

	var passed []*os.File
	names, kept := make(map[string]int), 0
	for kept < listeners {
		select {
		case m := <-heard:
			name := m.fields["FDNAME"]
			if m.fields["FDSTORE"] != "1" {
				continue // an older map goes
			}
			if len(m.files) > kernelMax {
				t.Errorf("%d descriptors in a message", len(m.files))
			}
			passed = append(passed, m.files...)
			if !strings.HasPrefix(name, "map-") {
				names[name] += len(m.files)
				kept += len(m.files)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%d of %d listeners have come", kept, listeners)
		}
	}
	if len(names) != 4 || names["1"] != 1 {
		t.Errorf("listeners by name: %v, want one under 1 and the others under three names more", names)
	}
	for _, f := range passed {
		if f.Name() != "map-2" {
			continue
		}
		var all []struct {
			fdstore.Place
			Owner string
		}
		text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
		if err == nil {
			err = json.Unmarshal(text, &all)
		}
		link, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
		if err != nil || len(all) != listeners || !strings.HasPrefix(link, "/memfd:") {
			t.Errorf("the map is %s, and has %d listeners: %v", link, len(all), err)
		}
	}
	// The next process finds each for whom it was.
	next := fdstore.New(func(string, ...int) error { return nil }, passed, time.Minute, slog.New(slog.DiscardHandler))
	for p, owner := range want {
		f, err := next.Take(p, owner)
		if f == nil || err != nil {
			t.Fatalf("%v of %s is not there: %v", p, owner, err)
		}
		_ = f.Close()
	}
	next.Close()
}
