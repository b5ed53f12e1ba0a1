package tunnel_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/stream"
)

// endpointKinds are all kinds of endpoints. A new one is held to every promise by a line
// here. start begins a guest agent, a process of its own that has the key of [keyed]
// (without one it bounds the connections of a host by its descriptors).
var endpointKinds = []struct {
	name  string
	inVM  bool // only in a VM of the tests' own
	start func(t *testing.T) agent
}{
	{"unix", false, startUnix},
	{"hybrid", false, startHybrid},
	{"serial", false, startSerial},
	{"exec", false, startExec},
	{"vsock", true, startVsock},
}

// agent is a guest agent: how the host reaches it, what kills it, and how many connections
// it has accepted; nil where the endpoint has one only.
type agent struct {
	at       string
	kill     func()
	accepted func() int64
}

func startUnix(t *testing.T) agent {
	at := "unix:" + filepath.Join(t.TempDir(), "agent.sock")
	c := startChild(t, "guest", stream.PathRaw, at, withKey)
	return agent{at, c.kill, c.accepted.Load}
}

func startHybrid(t *testing.T) agent {
	a := startUnix(t)
	a.at = startVMM(t, strings.TrimPrefix(a.at, "unix:")).String()
	return a
}

func startSerial(t *testing.T) agent {
	path := filepath.Join(t.TempDir(), "port.sock")
	return agent{at: "serial:" + path, kill: startChild(t, "guest", stream.PathMux, "unix:"+path, withKey).kill}
}

func startExec(t *testing.T) agent {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pid := filepath.Join(t.TempDir(), "pid")
	at := fmt.Sprintf("exec:echo $$ >%s; %s=%s exec %s", pid, asStdioGuest, withKey, self)
	return agent{at: at, kill: func() {
		b, err := os.ReadFile(pid)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(n, syscall.SIGKILL)
	}}
}

func startVsock(t *testing.T) agent {
	port := vsockPort.Add(1)
	c := startChild(t, "guest", stream.PathRaw, fmt.Sprintf("vsock:%d", port), withKey)
	return agent{fmt.Sprintf("vsock:%d:%d", vsockLoopback, port), c.kill, c.accepted.Load}
}

func linkTo(t *testing.T, a agent) *link {
	t.Helper()
	e, err := endpoint.Parse(a.at)
	if err != nil {
		t.Fatal(err)
	}
	if e.Many() != (a.accepted != nil) {
		t.Fatalf("%s: it allows many connections, or one: the other is told of how many it has", e)
	}
	return startLink(t, &guest{endpoint: e}, keyed)
}
