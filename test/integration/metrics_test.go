package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// metric is one series as the agent's socket has it; -1 where there is none.
func (h *hostAgent) metric(t *testing.T, series string) float64 {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", h.socket)
	}}}
	r, err := client.Get("http://agent/v1/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v\n%s", r.Status, err, text)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			var v float64
			if _, err := fmt.Sscan(rest, &v); err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	return -1
}

// wantMetric waits for what is counted in other goroutines.
func (h *hostAgent) wantMetric(t *testing.T, series string, want float64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s to be %v", series, want), func() bool { return h.metric(t, series) == want })
}

func TestMetricsCountWhatCrossesByWhateverPath(t *testing.T) {
	for _, path := range []string{"unix", "mux", "bridge"} {
		t.Run(path, func(t *testing.T) {
			g := &guestVM{namespace: newNamespace(t), name: "dev"}
			greet(g.listen(t, "0.0.0.0:7750"), "hello")
			var h *hostAgent
			switch path {
			case "unix":
				g.socket = filepath.Join(t.TempDir(), "dev.sock")
				g.startAgent(t)
				h = startHost(t, "", g)
			case "mux":
				h = startAlone(t, "--vm", fmt.Sprintf("dev=exec:nsenter --net=/proc/%d/fd/%d %s --stdio", os.Getpid(), g.file.Fd(), filepath.Join(bin, "rum-guest-agent")))
			case "bridge":
				rules := filepath.Join(t.TempDir(), "rum.toml")
				if err := os.WriteFile(rules, []byte("[[forward]]\nguest = 7750\nstatic = true\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				h = startAlone(t, "--config", rules, "--vm", "dev=unix:"+filepath.Join(t.TempDir(), "nobody")+",bridge="+g.joined(t))
			}
			h.awaitForward(t, "dev", 7750, "active by "+path, active)
			const port = `port="7750",proto="tcp",vm="dev"`
			for range 3 {
				eventually(t, "an answer", func() bool { return answers("127.0.0.1:7750", "hello") })
			}
			h.wantMetric(t, `rum_port_connections_total{`+port+`}`, 3)
			h.wantMetric(t, `rum_port_dial_seconds_count{`+port+`}`, 3)
			h.wantMetric(t, `rum_port_bytes_total{direction="in",`+port+`}`, 15)
			h.wantMetric(t, `rum_port_connections{`+port+`}`, 0)
			h.wantMetric(t, `rum_port_open{`+port+`}`, 1)
			if sum := h.metric(t, `rum_port_dial_seconds_sum{`+port+`}`); sum <= 0 || sum > 30 {
				t.Errorf("three connections took %v s to be made", sum)
			}
			if path != "bridge" { // where nothing is announced
				h.wantMetric(t, `rum_vm_detection_seconds_count{vm="dev"}`, 1)
			}
		})
	}
}

func TestMetricsTellOfLinksClaimsAndErrors(t *testing.T) {
	g := newGuest(t, "dev")
	listenHost(t, "127.0.0.1:7751")
	greet(g.listen(t, "0.0.0.0:7751"), "hello")
	h := startHostRules(t, g, "[[forward]]\nguest = 7752\nstatic = true\n")
	h.awaitForward(t, "dev", 7752, "active", active)
	h.wantMetric(t, `rum_vm_state{state="connected",vm="dev"}`, 1)
	h.wantMetric(t, `rum_vm_reconnects_total{vm="dev"}`, 0)
	h.wantMetric(t, `rum_vm_forwards{state="claim",vm="dev"}`, 1)
	h.wantMetric(t, `rum_port_open{port="7751",proto="tcp",vm="dev"}`, 0)

	answers("127.0.0.1:7752", "hello")
	h.wantMetric(t, `rum_port_errors_total{kind="refused",port="7752",proto="tcp",vm="dev"}`, 1)
	h.wantMetric(t, `rum_port_dial_seconds_count{port="7752",proto="tcp",vm="dev"}`, 0)

	g.agent.kill()
	h.wantMetric(t, `rum_vm_state{state="connected",vm="dev"}`, 0)
	g.startAgent(t)
	h.wantMetric(t, `rum_vm_state{state="connected",vm="dev"}`, 1)
	h.wantMetric(t, `rum_vm_reconnects_total{vm="dev"}`, 1)
}
