package rumtoml

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

func seen() []seenPort {
	return seenPorts(status.Status{VMs: []status.VM{
		{Name: "dev", Forwards: []status.Forward{
			{Proto: "tcp", Port: 8080, Guest: []string{"0.0.0.0:8080"}, State: status.Active, Process: "web\n[[ports]]\nhost_ip = \"*\"#[1]"},
			{Proto: "tcp", Port: 80, Guest: []string{"0.0.0.0:80"}, State: status.Denied, Process: "nginx[7]"},
			{Proto: "tcp", Port: 22, Guest: []string{"0.0.0.0:22"}, State: status.Ignored},
			{Proto: "tcp", Port: 9000, State: status.Active, Rule: "rum.toml:3"},
		}},
		{Name: "test", Forwards: []status.Forward{
			{Proto: "tcp", Port: 80, Guest: []string{"[::]:80"}, State: status.Claim},
		}},
	}})
}

// answer gives a new plan these answers and returns the file and what was asked.
func answer(t *testing.T, exists bool, answers ...string) (text string, asked string, write bool) {
	t.Helper()
	p := &Plan{seen: seen(), all: true}
	var out bytes.Buffer
	d := &dialogue{in: bufio.NewReader(strings.NewReader(strings.Join(answers, "\n"))), out: &out}
	write = d.complete(p, "/home/me/rum.toml", exists)
	text = p.text()
	if _, err := config.Parse("rum.toml", []byte(text)); err != nil {
		t.Errorf("not valid: %v\n%s", err, text)
	}
	return text, out.String(), write
}

// rulesOf are the lines of a file that are not comments.
func rulesOf(text string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		if line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, " ")
}

func TestInitAsksAboutThePortsItSees(t *testing.T) {
	for _, row := range []struct {
		answers []string
		want    string
		write   bool
	}{
		{[]string{"", "", "", "", ""}, "[[ports]] guest = 80 host = 8081", true},
		{[]string{"y", "8088", "n", "y", ""}, "[[ports]] guest = 80 host = 8088 [[forward]] guest = 8080 ignore = true", true},
		{[]string{"n", "8088", "", "y", ""}, "[[ports]] guest = 80 host = 8088 [[ports]] guest = 8080 host = 8080 [[forward]] ignore = true", true},
		{[]string{"N", "n", "n", "", ""}, "[[forward]] ignore = true", true},
		{[]string{"what", "", "port", "99999", "8088", "", "", ""}, "[[ports]] guest = 80 host = 8088", true},
		{[]string{"", "", "", "n", ""}, "[[ports]] guest = 80 host = 8081", false},
		// The end of the input is not consent.
		{[]string{"", "", "", ""}, "[[ports]] guest = 80 host = 8081", false},
		{[]string{""}, "[[forward]] ignore = true", false},
		{nil, "[[forward]] ignore = true", false},
	} {
		text, asked, write := answer(t, false, row.answers...)
		if got := rulesOf(text); got != row.want || write != row.write {
			t.Errorf("%q: got %v, %s\nwant %v, %s\n%s", row.answers, write, got, row.write, row.want, asked)
		}
	}
	_, asked, _ := answer(t, false, "", "", "", "", "")
	for _, want := range []string{"80/tcp (nginx[7] in dev, test): host port, or n for none [8081] ", "8080/tcp (web?[[ports]]?", "Write /home/me/rum.toml? [Y/n] "} {
		if !strings.Contains(asked, want) {
			t.Errorf("%q is not asked:\n%s", want, asked)
		}
	}
	if strings.Contains(asked, "22/tcp") || strings.Contains(asked, "9000") {
		t.Errorf("asks about what does not listen, or stays in the guest:\n%s", asked)
	}
}

// TestInitOffersPortsBelow1024WithTheRuleThatTheyNeed: they stay in the guest until a rule names them, so init is where
// a user meets them. What a rule of the user's keeps there, or ssh, is not offered.
func TestInitOffersPortsBelow1024WithTheRuleThatTheyNeed(t *testing.T) {
	st := status.Status{VMs: []status.VM{{Name: "dev", Forwards: []status.Forward{
		{Proto: "tcp", Port: 80, Guest: []string{"0.0.0.0:80", "[::]:80"}, State: status.Ignored, Rule: config.DefaultRule, Process: "nginx[7]"},
		{Proto: "udp", Port: 514, Guest: []string{"0.0.0.0:514"}, State: status.Ignored, Rule: config.DefaultRule},
		{Proto: "tcp", Port: 22, Guest: []string{"0.0.0.0:22"}, State: status.Ignored, Rule: config.DefaultRule},
		{Proto: "tcp", Port: 443, Guest: []string{"0.0.0.0:443"}, State: status.Ignored, Rule: "rum.toml:3"},
		{Proto: "tcp", Port: 41000, Guest: []string{"0.0.0.0:41000"}, State: status.Ignored, Rule: config.DefaultRule},
		{Proto: "unix", Guest: []string{"/run/app.sock"}, State: status.Ignored, Rule: config.DefaultRule},
	}}}}
	const both = `[[ports]] guest = 80 host = 8080 [[forward]] guest = 514 host = 8514 proto = "udp"`
	for answers, want := range map[string]string{
		"\n\n\n\n":      both,
		"\nn\n8000\n\n": `[[forward]] guest = 514 host = 8000 proto = "udp"`,
		"n\n\n\n\n":     both + " [[forward]] ignore = true",
	} {
		p := &Plan{seen: seenPorts(st), all: true}
		var out bytes.Buffer
		d := &dialogue{in: bufio.NewReader(strings.NewReader(answers)), out: &out}
		if !d.complete(p, "rum.toml", false) || rulesOf(p.text()) != want || !strings.Contains(out.String(), "80/tcp (nginx[7] in dev): host port, or n for none [8080]") {
			t.Errorf("%q: got %s\nwant %s\n%s", answers, rulesOf(p.text()), want, out.String())
		}
		if _, err := config.Parse("rum.toml", []byte(p.text())); err != nil {
			t.Error(err)
		}
	}
	// Nobody is asked with --yes: the file says what to write.
	if text := (&Plan{seen: seenPorts(st), all: true}).text(); rulesOf(text) != "" ||
		!strings.Contains(text, "\n#   80/tcp (nginx[7] in dev): stays there without a rule, guest = 80, host = 8080\n") ||
		!strings.Contains(text, ", guest = 514, host = 8514, proto = \"udp\"\n") {
		t.Errorf("got\n%s", text)
	}
}

// TestInitAsksAboutManyPortsAtOnce: all, none, or one by one.
func TestInitAsksAboutManyPortsAtOnce(t *testing.T) {
	many := status.VM{Name: "dev"}
	for port := range uint16(20) {
		many.Forwards = append(many.Forwards, status.Forward{Proto: "tcp", Port: 3000 + port, Guest: []string{"0.0.0.0:1"}, State: status.Active})
	}
	for answers, want := range map[string]struct{ rules, asked int }{
		"\n\n\n":        {0, 3}, // what is everywhere needs no rule
		"\nnone\n\n":    {20, 3},
		"\nwhat\na\n\n": {0, 4},
		"n\n\n\n":       {20, 3},
		"n\nn\n\n":      {0, 3},
		"\nc\n" + strings.Repeat("n\n", 20) + "\n": {20, 23},
	} {
		p := &Plan{seen: seenPorts(status.Status{VMs: []status.VM{many}}), all: true}
		var out bytes.Buffer
		d := &dialogue{in: bufio.NewReader(strings.NewReader(answers)), out: &out}
		if !d.complete(p, "rum.toml", false) || len(p.rules) != want.rules || strings.Count(out.String(), "? [")+strings.Count(out.String(), ": host port") != want.asked {
			t.Errorf("%q: %d rules\n%s", answers, len(p.rules), out.String())
		}
		if _, err := config.Parse("rum.toml", []byte(p.text())); err != nil {
			t.Error(err)
		}
	}
}

// TestWhatInitWritesIsGoodForRumToo: beside the tables that rum requires, whatever was chosen.
func TestWhatInitWritesIsGoodForRumToo(t *testing.T) {
	p := &Plan{seen: seen()}
	for _, flag := range []string{"8080:80", "81", "5300:53/udp", "53/any", "9000-9009:90-99"} {
		r, err := parsePorts(flag)
		if err != nil {
			t.Fatal(err)
		}
		p.rules = append(p.rules, r)
	}
	p.rules = append(p.rules, portRule{guest: "6443"})
	c, err := config.ParseProject("rum.toml", []byte(p.text()+"[image]\nbase = \"x\"\n[resources]\ncpus = 1\nmemory_mb = 512\n"))
	if err != nil || len(c.Warnings) > 0 || len(c.Rules) != 7 {
		t.Errorf("%v, %v\n%s", err, c, p.text())
	}
}

func TestInitReplacesAFileOnlyWhenToldSo(t *testing.T) {
	for answers, want := range map[string]bool{"": false, "n": false, "y\n\n\n\n\n": true} {
		if _, asked, write := answer(t, true, answers); write != want || !strings.Contains(asked, "exists. Replace it? [y/N]") {
			t.Errorf("%q: %v\n%s", answers, write, asked)
		}
	}
}

func TestPortFlags(t *testing.T) {
	for flag, want := range map[string]string{
		"8080:80":          "[[ports]] guest = 80 host = 8080",
		"80":               "[[ports]] guest = 80 host = 80",
		"5300:53/udp":      "[[forward]] guest = 53 host = 5300 proto = \"udp\"",
		"53/any":           "[[forward]] guest = 53 proto = \"any\"",
		"9000-9009:80-89":  "[[forward]] guest = \"80-89\" host = \"9000-9009\"",
		"":                 "!is not [HOST:]GUEST[/PROTO]",
		":80":              "!is not [HOST:]GUEST[/PROTO]",
		"80:":              `!"" is not a port`,
		"70000":            "!70000 is not a port",
		"1:2:3":            "!",
		"80-81:90":         "!",
		"80/sctp":          "!",
		"80\" x=1":         "!",
		"99999999999999:1": "!",
	} {
		r, err := parsePorts(flag)
		message, refused := strings.CutPrefix(want, "!")
		switch {
		case refused && (err == nil || !strings.Contains(err.Error(), message)):
			t.Errorf("%q: got %v, %v", flag, r, err)
		case !refused && (err != nil || rulesOf(r.toml()) != want):
			t.Errorf("%q: got %s, %v", flag, rulesOf(r.toml()), err)
		}
	}
}

func TestWriteFileKeepsLinksAndNeverRacesAnother(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "sub", "rum.toml"), filepath.Join(dir, "link.toml")
	if err := writeFile(path, "one", false); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(path, "two", false); !os.IsExist(err) {
		t.Errorf("got %v", err)
	}
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(link, "three", true); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link is gone")
	}
	got, err := os.ReadFile(path)
	entries, _ := os.ReadDir(filepath.Dir(path))
	if err != nil || string(got) != "three" || len(entries) != 1 {
		t.Errorf("%q, %v, %v", got, err, entries)
	}
}

// What init leaves as comments is what a person will uncomment.
func TestTheCommentsOfANewFileAreValidToo(t *testing.T) {
	var lines []string
	for line := range strings.SplitSeq(initText, "\n") {
		if strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "# ") {
			line = line[1:]
		}
		lines = append(lines, line)
	}
	for _, contradicting := range []string{"ignore", "static"} {
		text := strings.Join(slices.DeleteFunc(slices.Clone(lines), func(l string) bool {
			if l == "host = 8080" {
				return false // of [[ports]]
			}
			return strings.HasPrefix(l, contradicting) || contradicting == "static" && strings.HasPrefix(l, "host") && !strings.HasPrefix(l, "host_only") ||
				contradicting == "ignore" && strings.HasPrefix(l, "process")
		}), "\n")
		if c, err := config.Parse("init.toml", []byte(text)); err != nil || len(c.Rules) != 3 || c.Network != config.Default().Network {
			t.Errorf("without %s: %v\n%s", contradicting, err, text)
		}
	}
}

func TestTheProgramsOfAPortAreToldInTheSameOrderAtEachRun(t *testing.T) {
	told := func(by ...string) string {
		var seen []seenPort
		for _, b := range by {
			seen = addSeen(seen, seenPort{port: 8080, host: 8080, proto: "tcp", by: []string{b}})
		}
		return seen[0].String()
	}
	if a, b := told("node in dev", "nginx in dev", "nginx in web"), told("nginx in web", "nginx in dev", "node in dev"); a != b {
		t.Errorf("%q and %q", a, b)
	}
}
