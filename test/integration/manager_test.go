package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/control"
)

// manager is a service manager as systemd is to an agent, as far as that goes by messages: it keeps descriptors
// (sd_notify(3), FDSTORE=1) and gives them to the next process. The real one is in test/e2e/packages.
type manager struct {
	conn    *net.UnixConn
	path    string
	control string // the socket that is passed too

	mu     sync.Mutex
	stored []storedFD
	states []string
}

type storedFD struct {
	name string
	fd   int
	poll bool
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir := t.TempDir()
	m := &manager{path: filepath.Join(dir, "notify"), control: filepath.Join(dir, "control.sock")}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: m.control, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	m.conn = conn
	m.stored = []storedFD{{"control", copyOf(t, f), false}}
	_ = f.Close()
	done := make(chan struct{})
	go func() { defer close(done); m.hear() }()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
		for _, s := range m.stored {
			_ = unix.Close(s.fd)
		}
	})
	return m
}

func copyOf(t *testing.T, f *os.File) int {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// hear takes messages until the socket is closed.
func (m *manager) hear() {
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*253))
	for {
		_ = m.conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		n, noob, _, _, err := m.conn.ReadMsgUnix(buf, oob)
		m.mu.Lock()
		m.dropHungUp()
		m.mu.Unlock()
		if os.IsTimeout(err) {
			continue
		}
		if err != nil {
			return
		}
		var fds []int
		if messages, err := unix.ParseSocketControlMessage(oob[:noob]); err == nil {
			for i := range messages {
				if rights, err := unix.ParseUnixRights(&messages[i]); err == nil {
					fds = append(fds, rights...)
				}
			}
		}
		m.mu.Lock()
		m.take(string(buf[:n]), fds)
		m.mu.Unlock()
	}
}

func (m *manager) take(text string, fds []int) {
	fields := make(map[string]string)
	for _, line := range strings.Split(text, "\n") {
		key, value, _ := strings.Cut(line, "=")
		fields[key] = value
	}
	switch {
	case fields["FDSTORE"] == "1":
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			m.stored = append(m.stored, storedFD{fields["FDNAME"], fd, fields["FDPOLL"] != "0"})
		}
		return
	case fields["FDSTOREREMOVE"] == "1":
		m.drop(func(s storedFD) bool { return s.name == fields["FDNAME"] })
	default:
		m.states = append(m.states, text)
	}
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// dropHungUp is what systemd does with what it polls.
func (m *manager) dropHungUp() {
	m.drop(func(s storedFD) bool {
		fds := []unix.PollFd{{Fd: int32(s.fd)}}
		_, _ = unix.Poll(fds, 0)
		return s.poll && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
}

func (m *manager) drop(which func(storedFD) bool) {
	var left []storedFD
	for _, s := range m.stored {
		if which(s) {
			_ = unix.Close(s.fd)
		} else {
			left = append(left, s)
		}
	}
	m.stored = left
}

// names are those of what is stored, the control socket apart.
func (m *manager) names() (all []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.stored[1:] {
		all = append(all, s.name)
	}
	return all
}

// listeners is how many are stored.
func (m *manager) listeners() (n int) {
	for _, name := range m.names() {
		if !strings.HasPrefix(name, "map-") {
			n++
		}
	}
	return n
}

// start starts an agent with what is stored, and returns when its control socket answers.
func (m *manager) start(t *testing.T, args ...string) *hostAgent {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh", filepath.Join(bin, "rum-host-agent"), "run"}, args...)...)
	var names []string
	m.mu.Lock()
	for _, s := range m.stored {
		fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			m.mu.Unlock()
			t.Fatal(err)
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(fd), s.name))
		names = append(names, s.name)
	}
	m.mu.Unlock()
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+m.path,
		fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	h := &hostAgent{program: startCommand(t, cmd), socket: m.control}
	for _, f := range cmd.ExtraFiles {
		_ = f.Close()
	}
	eventually(t, "the agent to answer", func() bool {
		_, err := control.NewClient(h.socket).Status(t.Context())
		return err == nil
	})
	return h
}
