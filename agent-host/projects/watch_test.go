package projects_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/projects"
	"github.com/rum-vm/rum-agent/test/rumproject"
)

const minimal = "[image]\nbase = \"x\"\n[resources]\ncpus = 1\nmemory_mb = 512\n"

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// describe says which projects there are, with how many rules, and what is wrong.
func describe(all []*projects.Project) string {
	var out []string
	for _, p := range all {
		text := fmt.Sprintf("%s: %d", p.Domain, len(p.File.Current().Rules))
		if p.File.Err() != nil {
			text += " in error"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// follow follows projects until the test ends, and returns what waits for them to be as wanted.
func follow(t *testing.T, data, remember string) func(want string) time.Duration {
	t.Helper()
	w := &projects.Watcher{Dir: data, Remember: remember, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	seen, done := make(chan string, 100), make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx, nil, func(all []*projects.Project) { seen <- describe(all) })
	}()
	t.Cleanup(func() { cancel(); <-done })
	last := ""
	return func(want string) time.Duration {
		t.Helper()
		began, patience := time.Now(), time.After(10*time.Second)
		for {
			select {
			case last = <-seen:
				if last == want {
					return time.Since(began)
				}
			case <-patience:
				t.Fatalf("got %q, want %q", last, want)
			}
		}
	}
}

func TestProjectsAreFoundFollowedAndForgotten(t *testing.T) {
	data, remember := filepath.Join(t.TempDir(), "rum"), t.TempDir()
	until := follow(t, data, remember)
	until("")
	shop, shopDir := rumproject.New(t, data, "shop.rum.toml", minimal+"[[ports]]\nguest = 80\nhost = 8080\n")
	until("shop: 1")
	plain, _ := rumproject.New(t, data, "rum.toml", minimal)
	id := config.ProjectID(plain)
	order := func(a, b string) string {
		if a < b {
			return a + ", " + b
		}
		return b + ", " + a
	}
	until(order(id+": 0", "shop: 1"))
	// A saved file is live within a second.
	write(t, shop, minimal+"[[ports]]\nguest = 80\nhost = 8080\n[[forward]]\nguest = 81\n")
	if took := until(order(id+": 0", "shop: 2")); took > time.Second {
		t.Errorf("an edit took %v", took)
	}
	// A broken one keeps the last good rules, and a missing one too.
	write(t, shop, minimal+"[[ports]]\nguset = 80\n")
	until(order(id+": 0", "shop: 2 in error"))
	if err := os.Remove(plain); err != nil {
		t.Fatal(err)
	}
	until(order(id+": 0 in error", "shop: 2 in error"))
	write(t, shop, minimal)
	until(order(id+": 0 in error", "shop: 0"))
	if err := os.RemoveAll(shopDir); err != nil {
		t.Fatal(err)
	}
	until(id + ": 0 in error")
}

func TestAFileThatMayBeReadAgainIsRead(t *testing.T) {
	data := filepath.Join(t.TempDir(), "rum")
	shop, _ := rumproject.New(t, data, "shop.rum.toml", minimal+"[[ports]]\nguest = 80\nhost = 8080\n")
	_, otherDir := rumproject.New(t, data, "other.rum.toml", minimal)
	// Root may read all, so what it does not read is another user's.
	deny, allow := func(path string) error { return os.Chmod(path, 0) }, func(path string) error { return os.Chmod(path, 0o600) }
	if os.Geteuid() == 0 {
		deny, allow = func(path string) error { return os.Chown(path, 65534, -1) }, func(path string) error { return os.Chown(path, 0, -1) }
	}
	config := filepath.Join(otherDir, "config_path")
	if err := deny(config); err != nil {
		t.Fatal(err)
	}
	until := follow(t, data, t.TempDir())
	until("shop: 1")
	for _, step := range []struct {
		do         func(string) error
		path, want string
	}{
		{deny, shop, "shop: 1 in error"},
		{allow, shop, "shop: 1"},
		{allow, config, "other: 0, shop: 1"},
	} {
		if err := step.do(step.path); err != nil {
			t.Fatal(err)
		}
		until(step.want)
	}
}

func TestTheLogSaysWhichProjectCameAndWhichWent(t *testing.T) {
	data, log := filepath.Join(t.TempDir(), "rum"), &strings.Builder{}
	w := &projects.Watcher{Dir: data, Log: slog.New(slog.NewTextHandler(log, nil))}
	path, workDir := rumproject.New(t, data, "shop.rum.toml", minimal)
	says := func(change string) {
		t.Helper()
		if _, changed := w.Scan(); !changed {
			t.Error("nothing has changed")
		}
		want := fmt.Sprintf("msg=%q file=%s domain=shop\n", change, path)
		if got := log.String(); !strings.Contains(got, want) {
			t.Errorf("got %swant %s", got, want)
		}
		log.Reset()
	}
	says("project found")
	if err := os.RemoveAll(workDir); err != nil {
		t.Fatal(err)
	}
	says("project is gone")
	if w.Scan(); log.Len() > 0 {
		t.Errorf("said more than once: %s", log)
	}
}

func TestAFileThatIsBrokenFromTheStartKeepsWhatALastRunKnew(t *testing.T) {
	data, remember := filepath.Join(t.TempDir(), "rum"), t.TempDir()
	path, _ := rumproject.New(t, data, "shop.rum.toml", minimal+"[[ports]]\nguest = 80\nhost = 8080\n[[forward]]\nguest = 81\n")
	scan := func(remember string) *projects.Project {
		t.Helper()
		w := &projects.Watcher{Dir: data, Remember: remember, Log: slog.New(slog.DiscardHandler)}
		all, changed := w.Scan()
		if len(all) != 1 || !changed {
			t.Fatalf("%v, %v", all, changed)
		}
		return all[0]
	}
	scan(remember)
	write(t, path, "[[ports]]\nguset = 1\n")
	if p := scan(remember); len(p.File.Current().Rules) != 2 || p.File.Err() == nil {
		t.Errorf("%v, %v", p.File.Current(), p.File.Err())
	}
	// Nobody knows what the rules would be: everything stays in the guest.
	p := scan(t.TempDir())
	if rules := p.File.Current().Rules; len(rules) != 1 || !rules[0].Ignore || p.File.Err() == nil {
		t.Errorf("%+v, %v", rules, p.File.Err())
	}
}

func TestWhatIsNotThisUsersOrNotRumsIsNotRead(t *testing.T) {
	data := filepath.Join(t.TempDir(), "rum")
	path, workDir := rumproject.New(t, data, "shop.rum.toml", minimal)
	scan := func() []*projects.Project {
		w := &projects.Watcher{Dir: data, Log: slog.New(slog.DiscardHandler)}
		all, _ := w.Scan()
		return all
	}
	if all := scan(); len(all) != 1 || all[0].Domain != "shop" || all[0].ID != config.ProjectID(path) || all[0].WorkDir != workDir || all[0].URI() != "qemu:///system" {
		t.Fatalf("%+v", all)
	}
	for what, spoil := range map[string]func(config string){
		"another file's":    func(c string) { write(t, c, "/elsewhere/shop.rum.toml") },
		"relative":          func(c string) { write(t, c, "shop.rum.toml") },
		"empty":             func(c string) { write(t, c, "") },
		"endless":           func(c string) { write(t, c, "/"+strings.Repeat("a", 1<<20)) },
		"not there":         func(c string) { os.Remove(c) },
		"a pipe":            func(c string) { os.Remove(c); _ = syscall.Mkfifo(c, 0o600) },
		"a symbolic link":   func(c string) { os.Rename(c, c+"2"); _ = os.Symlink(c+"2", c) },
		"in a link's place": func(c string) { d := filepath.Dir(c); os.Rename(d, d+"2"); _ = os.Symlink(d+"2", d) },
	} {
		_, dir := rumproject.New(t, data, "bad.rum.toml", minimal)
		spoil(filepath.Join(dir, "config_path"))
		for _, p := range scan() {
			if p.Domain == "bad" {
				t.Errorf("%s: found", what)
			}
		}
		os.RemoveAll(dir)
		os.RemoveAll(dir + "2")
	}
	if os.Geteuid() != 0 {
		t.Log("other users' files: needs root")
		return
	}
	const nobody = 65534
	for _, what := range []string{workDir, filepath.Join(workDir, "config_path")} {
		if err := os.Chown(what, nobody, -1); err != nil {
			t.Fatal(err)
		}
		if all := scan(); len(all) != 0 {
			t.Errorf("read although %s is another user's", what)
		}
		os.Chown(what, 0, -1)
	}
	os.Chown(path, nobody, -1)
	if all := scan(); len(all) != 1 || all[0].File.Err() == nil || !all[0].File.Current().Rules[0].Ignore {
		t.Errorf("root's agent read another user's file")
	}
}

func TestAWorkDirectoryThatIsNotUsedIsToldWithTheReasonAndWhatToDo(t *testing.T) {
	data := filepath.Join(t.TempDir(), "rum")
	_, workDir := rumproject.New(t, data, "shop.rum.toml", minimal)
	config := filepath.Join(workDir, "config_path")
	w := &projects.Watcher{Dir: data, Log: slog.New(slog.DiscardHandler)}
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		spoil, mend    func() error
		reason, remedy string
	}{
		{
			func() error { return os.Chmod(workDir, 0o777) }, func() error { return os.Chmod(workDir, 0o755) },
			"every user may change " + workDir, "chmod o-w " + workDir,
		},
		{
			func() error { return os.Chmod(config, 0o646) }, func() error { return os.Chmod(config, 0o644) },
			"every user may change " + config, "chmod o-w " + config,
		},
		{
			func() error { return os.WriteFile(config, []byte("/elsewhere/shop.rum.toml"), 0o644) },
			func() error { return os.WriteFile(config, text, 0o644) },
			"the project was moved, or is not rum's", "put the project back where it was",
		},
		{
			func() error { return os.WriteFile(config, []byte("shop.rum.toml"), 0o644) },
			func() error { return os.WriteFile(config, text, 0o644) },
			config + " holds no path", "remove the directory",
		},
	}
	if os.Geteuid() == 0 {
		steps = append(steps, steps[0])
		last := &steps[len(steps)-1]
		last.spoil, last.mend = func() error { return os.Chown(workDir, 65534, -1) }, func() error { return os.Chown(workDir, 0, -1) }
		last.reason, last.remedy = workDir+" belongs to user 65534, not to 0", "run an agent as user 65534"
	}
	for _, step := range steps {
		w = &projects.Watcher{Dir: data, Log: slog.New(slog.DiscardHandler)}
		if err := step.spoil(); err != nil {
			t.Fatal(err)
		}
		all, changed := w.Scan()
		got := w.Refused()
		if len(all) != 0 || !changed || len(got) != 1 || got[0].Path != workDir || !strings.Contains(got[0].Reason.Error(), step.reason) || !strings.Contains(got[0].Remedy, step.remedy) {
			t.Fatalf("%s: projects %v, changed %v, refused %+v", step.reason, all, changed, got)
		}
		if _, changed := w.Scan(); changed {
			t.Errorf("%s: it is told as new twice", step.reason)
		}
		if err := step.mend(); err != nil {
			t.Fatal(err)
		}
		if all, changed := w.Scan(); len(all) != 1 || !changed || len(w.Refused()) != 0 {
			t.Errorf("%s, and mended: projects %v, changed %v, refused %+v", step.reason, all, changed, w.Refused())
		}
	}
	if err := os.WriteFile(filepath.Join(data, "deadbeef-web"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if w.Scan(); len(w.Refused()) != 0 {
		t.Errorf("what is no directory is told: %+v", w.Refused())
	}
}

func TestADomainBelongsToTheProjectWhoseDiskItHas(t *testing.T) {
	data := filepath.Join(t.TempDir(), "rum")
	first, firstDir := rumproject.New(t, data, "shop.rum.toml", minimal)
	_, secondDir := rumproject.New(t, data, "shop.rum.toml", minimal)
	w := &projects.Watcher{Dir: data, Log: slog.New(slog.DiscardHandler)}
	all, _ := w.Scan()
	for disk, want := range map[string]string{
		filepath.Join(firstDir, "overlay.qcow2"):                             filepath.Base(firstDir),
		filepath.Join(secondDir, "overlay.qcow2"):                            filepath.Base(secondDir),
		"/home/other/.local/share/rum/0123abcd-shop/overlay.qcow2":           "",
		"/var/lib/libvirt/images/shop.qcow2":                                 "", // either's
		"/elsewhere/rum/" + filepath.Base(firstDir) + "/overlay.qcow2":       filepath.Base(firstDir),
		"/elsewhere/rum/" + config.ProjectID(first) + "-web/overlay.qcow2/x": "",
	} {
		got := ""
		if p := projects.Of(all, "shop", disk); p != nil {
			got = filepath.Base(p.WorkDir)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", disk, got, want)
		}
	}
	if p := projects.Of(all[:1], "shop", "/var/lib/libvirt/images/shop.qcow2"); p != nil {
		t.Errorf("the name alone decides: %v", p)
	}
	if p := projects.Of(all[:1], "shop", ""); p != all[0] {
		t.Errorf("%v", p)
	}
	if p := projects.Of(all[:1], "web", ""); p != nil {
		t.Errorf("%v", p)
	}
}
