package metrics_test

import (
	"cmp"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"golang.org/x/sys/unix"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/metrics"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/tunnel/latency"
)

func TestMain(m *testing.M) {
	ownnet.Enter()
	m.Run()
}

// measured is what a collector is given, which a test changes between scrapes.
type measured map[string]*hostagent.Measured

func (m measured) vm(name string) *hostagent.Measured {
	if m[name] == nil {
		m[name] = &hostagent.Measured{VM: name, State: status.Connected, Links: 1, Detections: &latency.Counter{}}
	}
	return m[name]
}

// port gives a VM a port, and returns its tally.
func (m measured) port(vm, proto string, port uint16) *serve.Tally {
	t := &serve.Tally{}
	v := m.vm(vm)
	v.Ports = append(v.Ports, serve.Port{Key: policy.Key{Proto: proto, Port: port}, Open: true, Tally: t})
	return t
}

func (m measured) handler() http.Handler {
	return metrics.Handler(&metrics.Collector{Version: "v1.2.3", Measure: func() iter.Seq[hostagent.Measured] {
		return func(yield func(hostagent.Measured) bool) {
			for _, v := range m {
				if !yield(*v) {
					return
				}
			}
		}
	}}, slog.New(slog.DiscardHandler))
}

// scrape is what the handler answers.
func scrape(t *testing.T, h http.Handler) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// value is that of one series; -1 where there is none.
func value(t *testing.T, text, series string) float64 {
	t.Helper()
	for line := range strings.Lines(text) {
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

// ours are the lines of series of this program's own.
func ours(text string) (lines []string) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "rum_") {
			lines = append(lines, line)
		}
	}
	return lines
}

// busy is a VM with something of everything.
func busy() measured {
	m := make(measured)
	n := m.port("dev", "tcp", 8080)
	n.Total.Store(7)
	n.Active.Store(2)
	n.Counters.In.Store(100)
	n.Counters.Out.Store(50)
	n.Counters.Dials.Observe(2 * time.Millisecond)
	n.Errors.Note(unix.ECONNREFUSED)
	m.port("dev", "udp", 53).Lost(3, unix.EMSGSIZE)
	m.port("dev", policy.ProtoUnix, 0).Total.Store(4)
	v := m.vm("dev")
	v.Links, v.Forwards = 3, map[string]int{status.Active: 3, status.Claim: 1}
	v.Detections.Observe(20 * time.Millisecond)
	return m
}

func TestAScrapeTellsWhatTheAgentCounts(t *testing.T) {
	text := scrape(t, busy().handler())
	for series, want := range map[string]float64{
		`rum_agent_info{version="v1.2.3"}`:                                           1,
		`rum_vm_state{state="connected",vm="dev"}`:                                   1,
		`rum_vm_state{state="down",vm="dev"}`:                                        0,
		`rum_vm_reconnects_total{vm="dev"}`:                                          2,
		`rum_vm_forwards{state="claim",vm="dev"}`:                                    1,
		`rum_vm_forwards{state="denied",vm="dev"}`:                                   0,
		`rum_vm_detection_seconds_bucket{vm="dev",le="0.01"}`:                        0,
		`rum_vm_detection_seconds_bucket{vm="dev",le="0.1"}`:                         1,
		`rum_vm_detection_seconds_sum{vm="dev"}`:                                     0.02,
		`rum_vm_summed_ports{vm="dev"}`:                                              1,
		`rum_port_open{port="8080",proto="tcp",vm="dev"}`:                            1,
		`rum_port_connections{port="8080",proto="tcp",vm="dev"}`:                     2,
		`rum_port_connections_total{port="8080",proto="tcp",vm="dev"}`:               7,
		`rum_port_connections_total{port="other",proto="unix",vm="dev"}`:             4,
		`rum_port_bytes_total{direction="in",port="8080",proto="tcp",vm="dev"}`:      100,
		`rum_port_bytes_total{direction="out",port="8080",proto="tcp",vm="dev"}`:     50,
		`rum_port_errors_total{kind="refused",port="8080",proto="tcp",vm="dev"}`:     1,
		`rum_port_errors_total{kind="cut",port="8080",proto="tcp",vm="dev"}`:         0,
		`rum_port_datagrams_dropped_total{port="53",proto="udp",vm="dev"}`:           3,
		`rum_port_errors_total{kind="other",port="53",proto="udp",vm="dev"}`:         0,
		`rum_port_dial_seconds_bucket{port="8080",proto="tcp",vm="dev",le="0.001"}`:  0,
		`rum_port_dial_seconds_bucket{port="8080",proto="tcp",vm="dev",le="0.003"}`:  1,
		`rum_port_dial_seconds_count{port="8080",proto="tcp",vm="dev"}`:              1,
		`rum_port_datagrams_dropped_total{port="8080",proto="tcp",vm="dev"}`:         -1,
		`rum_port_dial_seconds_count{port="53",proto="udp",vm="dev"}`:                -1,
		`rum_port_dial_seconds_bucket{port="8080",proto="tcp",vm="dev",le="0.0003"}`: 0,
	} {
		if got := value(t, text, series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	if t.Failed() {
		t.Log(strings.Join(ours(text), ""))
	}
}

func TestPrometheusFindsNothingToCorrect(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(scrape(t, busy().handler()))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestSeriesGoWithTheirPortAndTheirVM(t *testing.T) {
	m := busy()
	m.port("other", "tcp", 22)
	h := m.handler()
	if text := scrape(t, h); !strings.Contains(text, `port="8080"`) || !strings.Contains(text, `vm="other"`) {
		t.Fatal(text)
	}
	v := m.vm("dev")
	v.Ports = v.Ports[1:]
	delete(m, "other")
	text := scrape(t, h)
	if strings.Contains(text, `port="8080"`) || !strings.Contains(text, `port="53"`) {
		t.Errorf("of a port that has gone:\n%s", strings.Join(ours(text), ""))
	}
	if strings.Contains(text, `vm="other"`) {
		t.Errorf("of a VM that has gone:\n%s", strings.Join(ours(text), ""))
	}
}

func TestAGuestWithThousandsOfPortsMakesNoMoreSeriesThanThereMayBe(t *testing.T) {
	m := make(measured)
	for port := range uint16(5000) {
		m.port("dev", "tcp", 10000+port).Total.Store(1)
		m.port("dev", "udp", 10000+port).Total.Store(1)
	}
	h := m.handler()
	began := time.Now()
	text := scrape(t, h)
	t.Logf("a scrape with 10,000 ports took %v, and one with nothing new after it %v", time.Since(began), func() time.Duration {
		began := time.Now()
		scrape(t, h)
		return time.Since(began)
	}())
	const perPort, perVM, sums = 26, 30, 2
	if n := len(ours(text)); n > (metrics.MaxPorts+sums)*perPort+perVM {
		t.Errorf("%d series", n)
	}
	all := 0.0
	for _, line := range ours(text) {
		if strings.HasPrefix(line, "rum_port_connections_total") {
			var v float64
			_, _ = fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &v)
			all += v
		}
	}
	if all != 10000 {
		t.Errorf("together they had %v connections, want 10000", all)
	}
	if n := value(t, text, `rum_vm_summed_ports{vm="dev"}`); n != 10000-metrics.MaxPorts {
		t.Errorf("%v ports are summed", n)
	}
}

// Counters that fall would read as a restart, and as traffic that never was.
func TestCountersOfPortsThatAreSummedNeverFallWhateverComesAndGoes(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	m := make(measured)
	h := m.handler()
	last := 0.0
	for range 60 {
		v := m.vm("dev")
		slices.SortFunc(v.Ports, func(a, b serve.Port) int { return cmp.Compare(a.Key.Port, b.Key.Port) })
		v.Ports = slices.DeleteFunc(v.Ports, func(serve.Port) bool { return r.IntN(4) == 0 })
		for range r.IntN(3 * metrics.MaxPorts) {
			port := uint16(1 + r.IntN(1000))
			if !slices.ContainsFunc(v.Ports, func(p serve.Port) bool { return p.Key.Port == port }) {
				m.port("dev", "tcp", port)
			}
		}
		for _, p := range v.Ports {
			p.Tally.Total.Add(uint64(r.IntN(10)))
		}
		now := max(0, value(t, scrape(t, h), `rum_port_connections_total{port="other",proto="tcp",vm="dev"}`)) // no series at first
		if now < last {
			t.Fatalf("%v after %v", now, last)
		}
		last = max(last, now)
	}
	if last == 0 {
		t.Error("nothing was summed")
	}
}

func TestAPortKeepsItsSeriesWhenOthersComeBeforeIt(t *testing.T) {
	m := make(measured)
	m.port("dev", "tcp", 60000).Total.Store(5)
	h := m.handler()
	scrape(t, h)
	for port := range uint16(500) {
		m.port("dev", "tcp", 10000+port)
	}
	text := scrape(t, h)
	if n := value(t, text, `rum_port_connections_total{port="60000",proto="tcp",vm="dev"}`); n != 5 {
		t.Errorf("%v", n)
	}
	if n := value(t, text, `rum_port_connections_total{port="other",proto="tcp",vm="dev"}`); n != 0 {
		t.Errorf("it is in the sum as well: %v", n)
	}
}

func TestWithoutAHostOnlyThisMachineIsAnswered(t *testing.T) {
	for addr, want := range map[string]string{":0": "127.0.0.1", "127.0.0.2:0": "127.0.0.2", "[::1]:0": "::1"} {
		l, err := metrics.Listen(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if got := l.Addr().(*net.TCPAddr).IP.String(); got != want {
			t.Errorf("%s is %s, want %s", addr, got, want)
		}
	}
	if _, err := metrics.Listen(t.Context(), "9100"); err == nil {
		t.Error("a port without a colon is none")
	}
}
