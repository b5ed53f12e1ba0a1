package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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

func TestMetricsTellOfReverseRules(t *testing.T) {
	g := newGuest(t, "dev")
	greet(listenHost(t, "127.0.0.1:7753"), "hello")
	h := startHostRules(t, g, "[[forward]]\nguest = 7753\nreverse = true\n")
	h.forwardOf(t, "dev", "127.0.0.1:7753", active)
	const port = `port="7753",proto="reverse",vm="dev"`
	h.wantMetric(t, `rum_port_open{`+port+`}`, 1)
	if err := g.from(t, func() error {
		if !answers("127.0.0.1:7753", "hello") {
			return errors.New("no answer")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	h.wantMetric(t, `rum_port_connections_total{`+port+`}`, 1)
	h.wantMetric(t, `rum_port_dial_seconds_count{`+port+`}`, 1)
}

// Whatever is scraped, others are answered: how long that took is printed.
func TestScrapesOfAThousandPortsLeaveTheAgentAnswering(t *testing.T) {
	const ports, scrapers = 1000, 4
	good := newGuest(t, "good")
	crowd := &guestVM{name: "crowd", socket: filepath.Join(t.TempDir(), "crowd.sock")}
	begin := make(chan struct{})
	close(begin)
	crowded(t, crowd.socket, ports, begin)
	h := startHost(t, "", good, crowd)
	eventually(t, "a thousand ports", func() bool { return h.announcedBy(t, "crowd") == ports })
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var scrapes atomic.Int64
	for range scrapers {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if n := h.metric(t, `rum_vm_summed_ports{vm="crowd"}`); n != ports-64 {
					t.Errorf("%v ports are summed", n)
					return
				}
				scrapes.Add(1)
			}
		})
	}
	slowest, slowestPort := time.Duration(0), time.Duration(0)
	for port := 8080; port < 8100; port++ {
		asked := time.Now()
		h.announcedBy(t, "crowd")
		slowest = max(slowest, time.Since(asked))
		asked = time.Now()
		greet(good.listen(t, fmt.Sprintf("0.0.0.0:%d", port)), "good")
		eventually(t, "an answer", func() bool { return answers(fmt.Sprintf("127.0.0.1:%d", port), "good") })
		slowestPort = max(slowestPort, time.Since(asked))
	}
	close(stop)
	wg.Wait()
	t.Logf("%d scrapes meanwhile; status took %v at most, a port %v", scrapes.Load(), slowest, slowestPort)
}
