package metrics_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// exported are the metrics of ours as a scrape tells them: name, type, labels and help, as a row of the table in
// docs/metrics.md has them.
func exported(t *testing.T) map[string]string {
	t.Helper()
	text := scrape(t, busy().handler())
	types := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (rum_\w+) (\w+)$`).FindAllStringSubmatch(text, -1) {
		types[m[1]] = m[2]
	}
	rows := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^# HELP (rum_\w+) (.*)$`).FindAllStringSubmatch(text, -1) {
		name := m[1]
		series := regexp.MustCompile(`(?m)^` + name + `(?:_count)?\{(.*)\} `).FindStringSubmatch(text)
		if series == nil {
			t.Fatalf("%s has no series", name)
		}
		labels := make(map[string]bool)
		for _, l := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(series[1], -1) {
			labels[l[1]] = true
		}
		var quoted []string
		for _, l := range []string{"version", "vm", "proto", "port", "state", "direction", "kind"} {
			if labels[l] {
				quoted = append(quoted, "`"+l+"`")
				delete(labels, l)
			}
		}
		if len(labels) > 0 {
			t.Errorf("%s has labels that this test does not know: %v", name, labels)
		}
		rows[name] = "| `" + name + "` | " + types[name] + " | " + strings.Join(quoted, ", ") + " | " + m[2] + " |"
	}
	return rows
}

func TestTheDocumentationHasEveryMetricAsItIsExported(t *testing.T) {
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := exported(t)
	documented := regexp.MustCompile("(?m)^\\| `(rum_\\w+)` .*$").FindAllStringSubmatch(string(doc), -1)
	for _, row := range documented {
		if rows[row[1]] != row[0] {
			t.Errorf("docs/metrics.md has\n%s\nand the agent\n%s", row[0], rows[row[1]])
		}
		delete(rows, row[1])
	}
	for _, row := range rows {
		t.Errorf("docs/metrics.md lacks\n%s", row)
	}
}

// TestDashboardAndAlertsAskForMetricsThatThereAre looks at labels too: a misspelt one is an empty panel, and an alert that
// never comes.
func TestDashboardAndAlertsAskForMetricsThatThereAre(t *testing.T) {
	dashboard, err := os.ReadFile("../../docs/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(dashboard) {
		t.Error("the dashboard is no JSON")
	}
	alerts, err := os.ReadFile("../../docs/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	text := scrape(t, busy().handler())
	for file, content := range map[string]string{"dashboard": strings.ReplaceAll(string(dashboard), `\"`, `"`), "alerts": string(alerts)} {
		asked := regexp.MustCompile(`\b((?:rum|process|go)_[a-z_]+)(?:\{([^}]*)\})?`).FindAllStringSubmatch(content, -1)
		if len(asked) < 5 {
			t.Fatalf("%s: %v", file, asked)
		}
		for _, a := range asked {
			series := regexp.MustCompile(`(?m)^`+a[1]+`(?:\{.*\})? `).FindAllString(text, -1)
			if len(series) == 0 {
				t.Errorf("%s: there is no %s", file, a[1])
				continue
			}
			for _, l := range regexp.MustCompile(`(\w+)(=~|!~|=|!=)"([^"]*)"`).FindAllStringSubmatch(a[2], -1) {
				label, how, want := l[1], l[2], l[3]
				if label == "job" || strings.HasPrefix(want, "$") {
					continue // of Prometheus itself, and what a person chooses
				}
				is := regexp.MustCompile(`\b` + label + `="(?:` + want + `)"`)
				if !slices.ContainsFunc(series, is.MatchString) {
					t.Errorf("%s: no %s has %s%s%q", file, a[1], label, how, want)
				}
			}
		}
	}
}

// promtool is Prometheus's own checker.
func promtool(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("promtool"); err == nil {
		return path
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cache, "rum-agent", "promtool")
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("there is no promtool (%v); run: sh test/promtool.sh", err)
	}
	return path
}

func TestPromtoolChecksMetricsAndAlerts(t *testing.T) {
	promtool := promtool(t)
	dir := t.TempDir()
	for _, file := range []string{"../../docs/alerts.yml", "testdata/alerts_test.yml"} {
		text, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(file)), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"check", "metrics"}, {"check", "rules", "--lint-fatal", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		c := exec.Command(promtool, args...)
		c.Dir = dir
		if args[1] == "metrics" {
			c.Stdin = strings.NewReader(scrape(t, busy().handler()))
		}
		out, err := c.CombinedOutput()
		if err != nil || args[1] == "metrics" && len(out) > 0 {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	alerts, err := os.ReadFile(filepath.Join(dir, "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile(filepath.Join(dir, "alerts_test.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, alert := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(string(alerts), -1) {
		if !strings.Contains(string(tests), "alertname: "+alert[1]+"\n") {
			t.Errorf("nothing tests when %s comes", alert[1])
		}
	}
}
