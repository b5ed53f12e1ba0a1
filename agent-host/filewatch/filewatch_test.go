package filewatch_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rum-vm/rum-agent/agent-host/filewatch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// follow tells, each time it is called, whether a look is called for. The limit is
// well below the time after which there is a look although nothing was told.
func follow(t *testing.T, path string) (told func() bool) {
	t.Helper()
	w := filewatch.New()
	t.Cleanup(w.Close)
	look := func(limit time.Duration) bool {
		select {
		case <-w.C:
			w.Expect(false, []string{path})
			return true
		case <-time.After(limit):
			return false
		}
	}
	w.Expect(false, []string{path})
	for look(2 * filewatch.Every) {
	}
	return func() bool {
		t.Helper()
		if !look(10 * time.Second) {
			t.Error("nothing was told")
			return false
		}
		for look(2 * filewatch.Every) {
		}
		return true
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEachWayInWhichAFileChangesIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "rum.toml")
	told := follow(t, path)
	for what, change := range map[string]func() error{
		"a file comes":     func() error { return os.WriteFile(path, []byte("a"), 0o600) },
		"it is written to": func() error { return os.WriteFile(path, []byte("bc"), 0o600) },
		"another replaces it": func() error {
			if err := os.WriteFile(path+".new", []byte("def"), 0o600); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		},
		"its mode changes": func() error { return os.Chmod(path, 0o400) },
	} {
		if change() == nil && !told() {
			t.Error(what)
		}
	}
	must(t, os.Remove(path))
	told()
}

func TestADirectoryThatIsMadeLaterOrAnewIsWatched(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir := filepath.Join(root, "a", "b")
	path := filepath.Join(dir, "rum.toml")
	told := follow(t, path)
	for range 2 {
		must(t, os.Mkdir(filepath.Join(root, "a"), 0o700))
		told()
		must(t, os.Mkdir(dir, 0o700))
		told()
		must(t, os.WriteFile(path, nil, 0o600))
		told()
		must(t, os.RemoveAll(filepath.Join(root, "a")))
		told()
	}
}

func TestWhatALinkLeadsToIsWatched(t *testing.T) {
	t.Parallel()
	links, files := t.TempDir(), t.TempDir()
	path := filepath.Join(links, "rum.toml")
	must(t, os.WriteFile(filepath.Join(files, "one"), nil, 0o600))
	must(t, os.Symlink(filepath.Join(files, "one"), filepath.Join(links, "between")))
	must(t, os.Symlink("between", path))
	told := follow(t, path)
	must(t, os.WriteFile(filepath.Join(files, "one"), []byte("a"), 0o600))
	told()
}

func TestALogBesideAFileCallsForNoLooks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	defer log.Close()
	w := filewatch.New()
	defer w.Close()
	path := []string{filepath.Join(dir, "rum.toml")}
	w.Expect(false, path)
	<-w.C // of the directory that was not watched yet
	w.Expect(false, path)
	for range 1000 {
		_, err := log.WriteString("x\n")
		must(t, err)
	}
	select {
	case <-w.C:
		t.Error("told of a file that is being written")
	case <-time.After(2 * filewatch.Every):
	}
}

func TestWhileAFileChangesThereIsALookNowAndThen(t *testing.T) {
	t.Parallel()
	w := filewatch.New()
	defer w.Close()
	path := []string{filepath.Join(t.TempDir(), "rum.toml")}
	for range 4 {
		w.Expect(true, path)
		select {
		case <-w.C:
		case <-time.After(10 * time.Second):
			t.Fatal("no look is called for")
		}
	}
}
