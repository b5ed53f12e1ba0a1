package configfile_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/configfile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type change struct {
	config *config.Config
	err    error
}

// follow follows a file until the test ends.
func follow(t *testing.T, f *configfile.File) (changes <-chan change, now chan<- func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, asked, done := make(chan change, 10), make(chan func(), 1), make(chan struct{})
	go func() {
		defer close(done)
		f.Follow(ctx, asked, func(c *config.Config, err error) { out <- change{c, err} })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return out, asked
}

func next(t *testing.T, changes <-chan change) change {
	t.Helper()
	select {
	case c := <-changes:
		return c
	case <-time.After(10 * time.Second):
		t.Fatal("the change goes unnoticed")
		return change{}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAChangedFileIsReadAndABrokenOneChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rum.toml")
	write(t, path, "[[ports]]\nguest = 1\n")
	f, err := configfile.Open(path, false, "")
	if err != nil {
		t.Fatal(err)
	}
	changes, now := follow(t, f)

	write(t, path, "[[ports]]\nguest = 2\n[[ports]]\nguest = 3\n")
	if c := next(t, changes); c.err != nil || len(c.config.Rules) != 2 || f.Current() != c.config {
		t.Errorf("%+v", c)
	}
	write(t, path, "[[ports]]\ngust = 2\n")
	c := next(t, changes)
	if e, ok := errors.AsType[*config.Error](c.err); !ok || e.Line != 2 || e.File != path || len(c.config.Rules) != 2 {
		t.Errorf("%+v", c)
	}
	if f.Err() == nil || len(f.Current().Rules) != 2 {
		t.Errorf("%v, %v", f.Err(), f.Current())
	}
	// It says so when asked again, too.
	now <- func() {}
	if c := next(t, changes); c.err == nil {
		t.Error("broken, but no error when told to look again")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if c := next(t, changes); !errors.Is(c.err, fs.ErrNotExist) || len(c.config.Rules) != 2 {
		t.Errorf("%+v", c)
	}
	// Editors write another file and rename it.
	write(t, path+"~", "")
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
	if c := next(t, changes); c.err != nil || len(c.config.Rules) != 0 || f.Err() != nil {
		t.Errorf("%+v", c)
	}
}

func TestAnOptionalFileMayComeButNotGo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rum.toml")
	f, err := configfile.Open(path, true, "")
	if err != nil || len(f.Current().Rules) != 0 || f.Path() != path || f.Found() {
		t.Fatal(f.Current(), err)
	}
	changes, now := follow(t, f)
	write(t, path, "[[ports]]\nguest = 1\n")
	if c := next(t, changes); c.err != nil || len(c.config.Rules) != 1 || !f.Found() {
		t.Errorf("%+v", c)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if c := next(t, changes); !errors.Is(c.err, fs.ErrNotExist) || len(c.config.Rules) != 1 || f.Err() == nil {
			t.Errorf("%+v", c)
		}
		now <- func() {} // says so when asked again, too
	}
	next(t, changes)
	write(t, path, "") // is how to have no rules
	if c := next(t, changes); c.err != nil || len(c.config.Rules) != 0 {
		t.Errorf("%+v", c)
	}
}

func TestAFileThatMustBeThereIs(t *testing.T) {
	dir := t.TempDir()
	if _, err := configfile.Open(filepath.Join(dir, "none.toml"), false, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, optional := range []bool{true, false} {
		if _, err := configfile.Open(fifo, optional, ""); err == nil {
			t.Error("a pipe was read")
		}
		if _, err := configfile.Open(dir, optional, ""); err == nil {
			t.Error("a directory was read")
		}
	}
}

// TestAFileThatIsBeingWrittenIsNotTakenForAnEmptyOne: a writer may be held up between emptying a file and filling it.
func TestAFileThatIsBeingWrittenIsNotTakenForAnEmptyOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rum.toml")
	write(t, path, "[[ports]]\nguest = 1\n")
	f, err := configfile.Open(path, false, "")
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, "")
	for range 3 {
		if f.Poll() {
			t.Fatal("the empty file was read")
		}
	}
	write(t, path, "[[ports]]\nguest = 1\n[[ports]]\nguest = 2\n")
	f.Poll()
	if !f.Poll() || len(f.Current().Rules) != 2 {
		t.Errorf("%+v", f.Current())
	}
	// One that stays empty is.
	write(t, path, "")
	for range 10 {
		f.Poll()
	}
	if len(f.Current().Rules) != 0 {
		t.Errorf("%+v", f.Current())
	}
}

// Under sudo HOME may be that of the user who called it.
func TestRootTakesNoRulesFromAnotherUsersHome(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rum.toml")
	if err := os.WriteFile(path, []byte("[[ports]]\nguest = 80\nhost = 8080\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	root := os.Geteuid() == 0
	if root {
		if err := os.Chown(path, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	if f, err := configfile.Open(path, true, ""); (err != nil) != root || root && !strings.Contains(err.Error(), "another user's, and root's agent does not read it") {
		t.Errorf("%+v, %v", f, err)
	}
	// One that root names is root's choice.
	if f, err := configfile.Open(path, false, ""); err != nil || len(f.Current().Rules) != 1 {
		t.Errorf("named: %v", err)
	}
}
