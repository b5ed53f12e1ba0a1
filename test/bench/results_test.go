package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func testResults(samples map[string]map[metric][]comparedSample) *results {
	r := newResults(options{rounds: 3, seconds: 1})
	for relay, found := range samples {
		r.Samples[relay] = found
	}
	return r
}

// A machine that slows down between rounds slows both sides of a pair, so it must not move the ratio.
func TestRatioIsTakenWithinEachPair(t *testing.T) {
	r := testResults(map[string]map[metric][]comparedSample{
		"raw": {forward1: {{Value: 15, Loopback: 30}, {Value: 5, Loopback: 10}, {Value: 8, Loopback: 10}}},
	})
	if got, ok := r.ratio("raw", forward1); !ok || got != 0.5 {
		t.Errorf("ratio = %v, %v; want 0.5", got, ok)
	}
	if got, ok := r.value("raw", forward1); !ok || got != 8 {
		t.Errorf("value = %v, %v; want the median 8", got, ok)
	}
	if _, ok := r.ratio("raw", idleKiB); ok {
		t.Error("a metric without samples has a ratio")
	}
}

func TestGoalsJudgeTheSideTheyMean(t *testing.T) {
	r := testResults(map[string]map[metric][]comparedSample{
		"raw": {
			forward1: {{Value: 12, Loopback: 20}},
			rttP50:   {{Value: 30, Loopback: 10}},
			idleKiB:  {{Value: 20}},
		},
		"ssh": {forward1: {{Value: 2, Loopback: 20}}},
	})
	want := map[string]string{
		"raw, 1 stream forward / loopback": "ok",           // 0.6
		"raw, 1 stream forward / ssh -L":   "ok",           // 6
		"raw, round trip p50 / loopback":   "short",        // 3
		"raw, KiB per idle connection":     "ok",           // 20
		"mux, 1 stream forward / loopback": "not measured", // nothing
	}
	var out bytes.Buffer
	printGoals(&out, r)
	for line := range strings.Lines(out.String()) {
		for text, verdict := range want {
			if strings.HasPrefix(strings.TrimSpace(line), text+" ") {
				if !strings.HasSuffix(strings.TrimSpace(line), " "+verdict) {
					t.Errorf("%q: want %q", line, verdict)
				}
				delete(want, text)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("goals without a line: %v", want)
	}
}

func TestFailuresShowInTheTable(t *testing.T) {
	r := testResults(nil)
	r.fail("ssh", errors.New("no route"))
	var out bytes.Buffer
	printTables(&out, r)
	if !strings.Contains(out.String(), "not measured: ssh: no route") {
		t.Errorf("the failure is not in:\n%s", out.String())
	}
}

func TestRunOnABusyMachineSaysSo(t *testing.T) {
	for _, c := range []struct {
		lowest float64
		said   bool
	}{{lowest: 19, said: false}, {lowest: 2, said: true}} {
		r := testResults(map[string]map[metric][]comparedSample{
			"raw": {forward1: {{Value: 10, Loopback: c.lowest}, {Value: 10, Loopback: 20}}},
		})
		var out bytes.Buffer
		printTables(&out, r)
		if said := strings.Contains(out.String(), "not quiet"); said != c.said {
			t.Errorf("loopback between %v and 20: said so is %v, want %v", c.lowest, said, c.said)
		}
	}
}

func TestPercentileIsByNearestRank(t *testing.T) {
	times := make([]time.Duration, 100)
	for i := range times {
		times[i] = time.Duration(i + 1)
	}
	for p, want := range map[int]time.Duration{50: 50, 99: 99, 100: 100} {
		if got := percentile(times, p); got != want {
			t.Errorf("percentile %d = %d, want %d", p, got, want)
		}
	}
	if got := percentile(times[:1], 50); got != 1 {
		t.Errorf("percentile of one = %d, want it", got)
	}
}

func TestIperfReportThatSaysNothingIsAnError(t *testing.T) {
	for name, report := range map[string]string{
		"not JSON":   "iperf3: oops",
		"error":      `{"error": "the server is busy running a test"}`,
		"no bytes":   `{"end": {"sum_received": {"bytes": 0, "bits_per_second": 0}}}`,
		"no summary": `{"end": {}}`,
	} {
		if sum, err := parseIperf([]byte(report)); err == nil {
			t.Errorf("%s: got %+v and no error", name, sum)
		}
	}
	sum, err := parseIperf([]byte(`{"end": {"sum_received": {"bytes": 125000000, "bits_per_second": 1e9}}}`))
	if err != nil || sum.Bytes != 125000000 || sum.BitsPerSecond != 1e9 {
		t.Errorf("got %+v, %v", sum, err)
	}
}

func TestQuickYieldsToWhatIsAskedFor(t *testing.T) {
	o, err := parseOptions([]string{"--quick", "--idle", "77"}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if o.rounds != 1 || o.idle != 77 {
		t.Errorf("rounds %d, idle %d; want 1 and 77", o.rounds, o.idle)
	}
}

func TestBadUsageIsToldApart(t *testing.T) {
	for _, args := range [][]string{{"--only", "pigeon"}, {"--rounds", "0"}, {"extra"}, {"--no-such-flag"}} {
		if _, err := parseOptions(args, t.Output()); !errors.Is(err, errUsage) {
			t.Errorf("%v: %v; want a usage error", args, err)
		}
	}
}
