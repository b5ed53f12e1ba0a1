package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
)

// crowded is a guest agent that says that n ports are open from 10000 up, from
// when it is told to.
func crowded(t *testing.T, socket string, n int, begin <-chan struct{}) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	all := announce.Announcement{Generation: 2}
	for i := range n {
		all.Listeners = append(all.Listeners, portlist.Listener{
			Proto: "tcp", Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(10000+i)), Process: "flood[7]",
		})
	}
	s := &tunnel.Server{Config: tunnel.Config{Log: quiet}, Source: func() (announce.Announcement, <-chan struct{}) {
		select {
		case <-begin:
			return all, nil
		default:
			return announce.Announcement{Generation: 1}, begin
		}
	}}
	l, err := endpoint.Listen(endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: socket}, nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(ctx, l) })
	t.Cleanup(func() { cancel(); wg.Wait() })
}

func TestVMsWithAllPortsLeaveTheAgentAnswering(t *testing.T) {
	const vms, ports = 4, 4096
	good := newGuest(t, "good")
	guests := []*guestVM{good}
	begin := make(chan struct{})
	for i := range vms {
		g := &guestVM{name: fmt.Sprint("hog", i), socket: filepath.Join(t.TempDir(), "hog.sock")}
		crowded(t, g.socket, ports, begin)
		guests = append(guests, g)
	}
	h := startHost(t, "", guests...)
	ask := func(args ...string) (out string, took time.Duration) {
		t.Helper()
		asked := time.Now()
		text, err := exec.Command(filepath.Join(bin, "rum-host-agent"), append([]string{"status", "--socket", h.socket}, args...)...).Output()
		if err != nil {
			t.Fatalf("status %v: %v", args, err)
		}
		return string(text), time.Since(asked)
	}

	close(begin)
	began := time.Now()
	slowest, slowestPort := time.Duration(0), time.Duration(0)
	for port := 8080; ; port++ {
		text, took := ask()
		if n := strings.Count(text, "\n"); n > vms*210+100 {
			t.Fatalf("%d lines", n)
		}
		_, one := ask("good")
		slowest = max(slowest, took, one)
		asked := time.Now()
		greet(good.listen(t, fmt.Sprintf("0.0.0.0:%d", port)), "good")
		h.awaitForward(t, "good", port, "active", active)
		slowestPort = max(slowestPort, time.Since(asked))
		if h.announcedBy(t, "hog") == vms*ports {
			break
		}
		if time.Since(began) > 45*time.Second {
			t.Fatalf("not ready:\n%s", text)
		}
	}
	t.Logf("ready after %v; status took %v at most, a port %v", time.Since(began), slowest, slowestPort)

	text, took := ask("--json")
	t.Logf("the whole status, %d MB, took %v", len(text)>>20, took)
	var st status.Status
	if err := json.Unmarshal([]byte(text), &st); err != nil {
		t.Fatal(err)
	}
	for _, vm := range st.VMs[1:] {
		count := map[string]int{}
		for _, f := range vm.Forwards {
			count[f.State]++
			if f.State == status.Denied && !strings.Contains(f.Reason, "this VM has") {
				t.Fatalf("%+v", f)
			}
		}
		if len(vm.Forwards) != ports || count[status.Denied] == 0 {
			t.Errorf("%s: %v", vm.Name, count)
		}
	}
}

// announcedBy counts the forwards of VMs whose name begins so.
func (h *hostAgent) announcedBy(t *testing.T, prefix string) (n int) {
	t.Helper()
	st, err := control.NewClient(h.socket).StatusOf(t.Context(), status.Query{Rows: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, vm := range st.VMs {
		if strings.HasPrefix(vm.Name, prefix) {
			n += len(vm.Forwards)
			for _, more := range vm.More {
				n += more
			}
		}
	}
	return n
}
