package rulefile_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/rulefile"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

const rum = "[image]\nbase = \"x\"\n[resources]\ncpus = 1\nmemory_mb = 512\n"

func project(t *testing.T, text string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "shop.rum.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func rule(t *testing.T, ports string, proto config.Proto, hold time.Duration) rulefile.Rule {
	t.Helper()
	m, err := config.ParseMapping(ports, proto)
	if err != nil {
		t.Fatal(err)
	}
	return rulefile.Rule{Mapping: m, Hold: hold}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const saved = "[[ports]]\nguest = 80\nhost = 8080\nhost_ip = \"localhost\"\n"

// What was there is there to the byte, and the rule is where ↓ is.
func TestARuleIsPutBeforeTheFirstThatMightDecideInItsPlace(t *testing.T) {
	for name, row := range map[string]struct{ text, rule string }{
		"no rules":       {rum + "↓", "\n" + saved},
		"no line end":    {strings.TrimSuffix(rum, "\n") + "↓", "\n\n" + saved},
		"nothing":        {"↓", saved},
		"another port":   {rum + "[[ports]]\nguest = 81\nhost = 8081\n↓", "\n" + saved},
		"the same port":  {rum + "[[ports]] # a\nguest = 443\nhost = 8443\n\n↓# what this is for\n# in two lines\n[[forward]]\nguest = 80\nignore = true\n", saved + "\n"},
		"all ports":      {rum + "↓[[forward]]\nignore = true\n[auto_ports]\nenabled = false\n", saved + "\n"},
		"a range":        {rum + "[[forward]]\nguest = \"1000-2000\"\n\n↓  [[forward]]\n  guest = \"1-100\"\n", saved + "\n"},
		"of a program":   {rum + "↓[[forward]]\nprocess = \"x\"\nguest = 80\nhost = 9\n", saved + "\n"},
		"udp alone":      {rum + "[[forward]]\nguest = 80\nproto = \"udp\"\n↓", "\n" + saved},
		"reverse":        {rum + "[[forward]]\nguest = 80\nhost = 80\nreverse = true\n↓", "\n" + saved},
		"another VM":     {rum + "[[forward]]\nguest = 80\nhost = 9\nvm = \"blog\"\n↓", "\n" + saved},
		"a text of many": {rum + "[provision.boot]\nscript = \"\"\"\n[[forward]]\n# no comment\"\"\"\n↓[[forward]]\nignore = true\n", saved + "\n"},
		"our own table":  {"ports = [{guest = 81, host = 8081}]\n" + rum + "↓", "\n" + strings.NewReplacer("[[ports]]", "[[forward]]", "host_ip = \"localhost\"\n", "").Replace(saved)},
		"CRLF":           {strings.ReplaceAll(rum, "\n", "\r\n") + "↓[[forward]]\r\nignore = true\r\n", strings.ReplaceAll(saved+"\n", "\n", "\r\n")},
		"BOM":            {"\xef\xbb\xbf↓[[forward]]\nignore = true\n", saved + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			before, after, _ := strings.Cut(row.text, "↓")
			path := project(t, before+after)
			saved, err := rulefile.Save(t.Context(), path, rule(t, "8080:80", config.TCP, 0))
			if err != nil {
				t.Fatal(err)
			}
			got := read(t, path)
			if want := before + row.rule + after; got != want {
				t.Fatalf("\n%q\nwant\n%q", got, want)
			}
			if at := strings.Split(got, "\n")[saved.Line-1]; !strings.HasSuffix(strings.TrimSpace(at), "]]") {
				t.Errorf("line %d is %q", saved.Line, at)
			}
		})
	}
}

// A rule that is saved decides as the one that was added does, and rum takes the file.
func TestWhatIsSavedMeansWhatWasAdded(t *testing.T) {
	for _, row := range []struct {
		ports string
		proto config.Proto
		hold  time.Duration
		table string
	}{
		{"8080:80", config.TCP, 0, "[[ports]]"},
		{"3000", config.TCP, 5 * time.Second, "[[ports]]"},
		{"5354:53", config.UDP, 0, "[[forward]]"},
		{"14000-14009:4000-4009", config.TCP, time.Second, "[[forward]]"},
	} {
		path := project(t, rum+"[[ports]]\nguest = 22\nhost = 2222\n[[forward]]\nignore = true\n")
		r := rule(t, row.ports, row.proto, row.hold)
		if _, err := rulefile.Save(t.Context(), path, r); err != nil {
			t.Fatal(err)
		}
		text := read(t, path)
		c, err := config.ParseProject(path, []byte(text))
		if err != nil || len(c.Warnings) > 0 || !strings.Contains(text, row.table+"\nguest = ") {
			t.Errorf("%v, %v\n%s", err, c.Warnings, text)
			continue
		}
		added, err := r.Rule("", row.hold)
		if err != nil {
			t.Fatal(err)
		}
		for _, port := range []uint16{r.Guest.First, r.Guest.Last} {
			l := portlist.Listener{Proto: string(row.proto), Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), port)}
			want, got := config.Rules{added}.Decide("shop", l), c.Rules.Decide("shop", l)
			got.Rule = ""
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s, port %d: %+v, want %+v", row.ports, port, got, want)
			}
		}
	}
}

func TestTheFileKeepsItsModeAndGroupAndIsReplacedAtOnce(t *testing.T) {
	path := project(t, rum)
	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, -1, 12345); err != nil {
			t.Fatal(err)
		}
	}
	was, _ := os.Stat(path)
	old, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if _, err := rulefile.Save(t.Context(), path, rule(t, "8080:80", config.TCP, 0)); err != nil {
		t.Fatal(err)
	}
	now, _ := os.Stat(path)
	a, b := was.Sys().(*syscall.Stat_t), now.Sys().(*syscall.Stat_t)
	if now.Mode() != was.Mode() || a.Uid != b.Uid || a.Gid != b.Gid {
		t.Errorf("%v %d:%d, was %v %d:%d", now.Mode(), b.Uid, b.Gid, was.Mode(), a.Uid, a.Gid)
	}
	if os.SameFile(was, now) {
		t.Error("who reads it meanwhile may find half of it")
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestAFileThatIsNotTheUsersOwnOrCannotHaveTheRuleIsLeftAlone(t *testing.T) {
	refused := func(path, words string) {
		t.Helper()
		text := read(t, path)
		_, err := rulefile.Save(t.Context(), path, rule(t, "8080:80", config.TCP, 0))
		if err == nil || !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), path) {
			t.Errorf("%v, want %s", err, words)
		}
		if read(t, path) != text {
			t.Errorf("%s: it was changed", words)
		}
		if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) > 2 {
			t.Errorf("left behind: %v", entries)
		}
	}
	path := project(t, rum)
	link := filepath.Join(filepath.Dir(path), "web.rum.toml")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	refused(link, "behind a symbolic link")
	dir := project(t, rum)
	behind := filepath.Join(filepath.Dir(filepath.Dir(dir)), "link")
	if err := os.Symlink(filepath.Dir(dir), behind); err != nil {
		t.Fatal(err)
	}
	refused(filepath.Join(behind, "shop.rum.toml"), "behind a symbolic link")
	for _, name := range []string{"rum.toml.bak", "config.toml", ".rum.toml", "-.rum.toml", "shop.rum.toml\n", "shop.RUM.toml"} {
		other := filepath.Join(filepath.Dir(project(t, rum)), name)
		if err := os.WriteFile(other, []byte("# nothing but a comment\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(other, "it is called neither rum.toml nor NAME.rum.toml")
	}
	refused(project(t, rum+"[[ports]]\nguest = 81\nhost = 8080\n"), "shop.rum.toml:6 has host port 8080 already")
	refused(project(t, rum+"[[ports]]\nguest = 80\nhost = 8080\n"), "shop.rum.toml:6 has host port 8080 already")
	refused(project(t, rum+"[[ports]]\ngust = 81\n"), "it has a mistake, which is to be corrected first: ")
	refused(project(t, "ports = [{guest = 81, host = 8081}]\nforward = [{guest = 82}]\n"+rum), "the rule finds no place there")
	// What every editor asks about first.
	readOnly := project(t, rum)
	if err := os.Chmod(readOnly, 0o444); err != nil {
		t.Fatal(err)
	}
	refused(readOnly, "it is read-only (mode 0444)")
	linked := project(t, rum)
	if err := os.Link(linked, filepath.Join(filepath.Dir(linked), "web.rum.toml")); err != nil {
		t.Fatal(err)
	}
	refused(linked, "it is one file under 2 names (hard links)")
	open := project(t, rum)
	if err := os.Chmod(filepath.Dir(open), 0o777); err != nil {
		t.Fatal(err)
	}
	refused(open, "every user may change its directory")
	if os.Geteuid() != 0 {
		t.Log("another user's file: needs root")
		return
	}
	if err := os.Chown(path, 65534, -1); err != nil {
		t.Fatal(err)
	}
	refused(path, "it belongs to user 65534")
	theirs := project(t, rum)
	if err := os.Chown(filepath.Dir(theirs), 65534, -1); err != nil {
		t.Fatal(err)
	}
	refused(theirs, "its directory belongs to user 65534")
}

// Each has its turn, and none takes out what another has put in.
func TestRulesThatAreSavedAtOnceAreAllThere(t *testing.T) {
	path := project(t, rum)
	var all sync.WaitGroup
	for i := range 30 {
		r := rule(t, fmt.Sprint(3000+i), config.TCP, 0)
		all.Go(func() {
			if saved, err := rulefile.Save(t.Context(), path, r); err != nil || !saved.Added {
				t.Errorf("%v: %+v, %v", r.Mapping, saved, err)
			}
		})
	}
	all.Wait()
	c, err := config.ParseProject(path, []byte(read(t, path)))
	if err != nil || len(c.Rules) != 30 {
		t.Errorf("%d rules, %v", len(c.Rules), err)
	}
}

func TestWhatAFileSaysAlreadyIsNotSavedAgain(t *testing.T) {
	path := project(t, rum+"[[forward]]\nguest = 443\nhost = 443\n")
	r := rule(t, "8080:80", config.TCP, 5*time.Second)
	at, err := rulefile.Save(t.Context(), path, r)
	if err != nil || !at.Added {
		t.Fatal(at, err)
	}
	text := read(t, path)
	if again, err := rulefile.Save(t.Context(), path, r); err != nil || again.Added || again.Line != at.Line || read(t, path) != text {
		t.Errorf("%+v, %v\n%s", again, err, read(t, path))
	}
	// What differs is taken by that rule.
	for _, other := range []rulefile.Rule{rule(t, "8080:80", config.TCP, 0), rule(t, "8080:81", config.TCP, 5*time.Second)} {
		if _, err := rulefile.Save(t.Context(), path, other); !errors.Is(err, rulefile.ErrTaken) {
			t.Errorf("%+v: %v", other, err)
		}
	}
	// One behind another that decides before it says nothing.
	path = project(t, rum+"[[forward]]\nguest = 80\nignore = true\n[[ports]]\nguest = 80\nhost = 8080\nhost_ip = \"localhost\"\n")
	if saved, err := rulefile.Save(t.Context(), path, rule(t, "8080:80", config.TCP, 0)); saved.Added || !errors.Is(err, rulefile.ErrTaken) {
		t.Errorf("%+v, %v", saved, err)
	}
}

// The user's own rule is not taken out of use without a word.
func TestWhatIsSavedTellsFromWhichRulesItTakesPorts(t *testing.T) {
	const rules = "[[ports]]\nguest = 4001\nhost = 15000\n[[forward]]\nguest = \"4000-4009\"\nhost = \"14000-14009\"\n"
	for ports, want := range map[string]string{
		"17000-17009:4000-4009": "[shop.rum.toml:10]", // the range has one more place too
		"17005:4005":            "[shop.rum.toml:14]",
		"16000:4001":            "[shop.rum.toml:14]", // for rum's own rule it is one more place
		"8080:80":               "[]",
	} {
		saved, err := rulefile.Save(t.Context(), project(t, rum+rules), rule(t, ports, config.TCP, 0))
		if err != nil || !saved.Added || fmt.Sprint(saved.InPlaceOf) != want {
			t.Errorf("%s: %+v, %v, want %s", ports, saved, err, want)
		}
	}
}

// No error is about a line that nobody has written.
func TestAFileWithoutAPlaceForTheRuleIsToldOfItsOwnLines(t *testing.T) {
	for text, want := range map[string]string{
		"ports = [{guest = 80, host = 81}]\n" + rum:                              "it has to come before what line 1 says",
		"# ports\nforward = [\n  {guest = \"1-100\", ignore = true},\n]\n" + rum: "it has to come before what line 3 says",
		"ports = [{guest = 81, host = 8081}]\nforward = [{guest = 82}]\n" + rum:  "its rules are in no tables of their own",
	} {
		_, err := rulefile.Save(t.Context(), project(t, text), rule(t, "8080:80", config.TCP, 0))
		if err == nil || !errors.Is(err, rulefile.ErrByHand) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "unknown key") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// What is put by hand where it is told decides, as at the end of the file it would not.
func TestARuleThatIsPutAboveTheLineThatIsToldDecides(t *testing.T) {
	r := rule(t, "8085:80", config.TCP, 0)
	r.VM = "dev"
	const text = "[[ports]]\nguest = 22\nhost = 2222\n[[forward]]\nguest = \"70-90\"\nhost = \"7070-7090\"\n[[ports]]\nguest = 80\nhost = 8080\n"
	line := rulefile.Above(project(t, text), "dev", r)
	if line != 4 {
		t.Fatalf("line %d", line)
	}
	lines := strings.SplitAfter(text, "\n")
	c, err := config.Parse("rum.toml", []byte(strings.Join(lines[:line-1], "")+r.Text(false)+strings.Join(lines[line-1:], "")))
	if err != nil {
		t.Fatal(err)
	}
	if d := c.Rules.Decide("dev", portlist.Listener{Proto: "tcp", Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), 80)}); d.Rule != "rum.toml:4" {
		t.Errorf("%+v", d)
	}
	r = rule(t, "8085:443", config.TCP, 0)
	for _, path := range []string{project(t, text), project(t, "[[ports"), "/nowhere/rum.toml"} {
		if line := rulefile.Above(path, "dev", r); line != 0 {
			t.Errorf("%s: line %d", path, line)
		}
	}
}

// As what is put by hand into a file for several VMs.
func TestARuleForOneVMIsForThatNameAlone(t *testing.T) {
	for _, name := range []string{"blog", "a[1]", `x*?\y`} {
		r := rule(t, "8080:80", config.TCP, 0)
		r.VM = name
		c, err := config.Parse("rum.toml", []byte(r.Text(false)))
		if err != nil {
			t.Errorf("%v\n%s", err, r.Text(false))
			continue
		}
		for _, vm := range []string{name, "a1", `xaay`, `x*z\y`, `xz?\y`, "other"} {
			d := c.Rules.Decide(vm, portlist.Listener{Proto: "tcp", Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), 80)})
			if got := d.Rule == "rum.toml:1"; got != (vm == name) {
				t.Errorf("the rule for %s is for %s: %v", name, vm, got)
			}
		}
	}
}
