package filewatch_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

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

// A directory above a file may be moved, and a link on the way lead elsewhere: what is at the path is another file then.
func TestWhatIsOnTheWayToAFileIsWatched(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	work := filepath.Join(root, "work")
	lay := func(dir string) {
		must(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, "a", "b", "rum.toml"), nil, 0o600))
	}
	lay(work)
	lay(filepath.Join(root, "other"))
	must(t, os.Symlink("work", filepath.Join(root, "now")))
	must(t, os.Symlink("../now/./a/../a", filepath.Join(work, "link")))
	told := follow(t, filepath.Join(work, "link", "b", "rum.toml"))
	for what, change := range map[string]func(){
		"a directory above is moved, and made anew": func() {
			must(t, os.Rename(work, work+".old"))
			lay(work)
			must(t, os.Symlink("../now/a", filepath.Join(work, "link")))
		},
		"directories change places": func() {
			must(t, unix.Renameat2(unix.AT_FDCWD, work, unix.AT_FDCWD, filepath.Join(root, "other"), unix.RENAME_EXCHANGE))
			must(t, unix.Renameat2(unix.AT_FDCWD, work, unix.AT_FDCWD, filepath.Join(root, "other"), unix.RENAME_EXCHANGE))
		},
		"a link is replaced": func() {
			must(t, os.Symlink("other", filepath.Join(root, "new")))
			must(t, os.Rename(filepath.Join(root, "new"), filepath.Join(root, "now")))
		},
		"a link is removed and made": func() {
			must(t, os.Remove(filepath.Join(root, "now")))
			must(t, os.Symlink("work", filepath.Join(root, "now")))
		},
	} {
		if change(); !told() {
			t.Error(what)
		}
	}
}

func TestAFileIsWatchedUnderEachOfItsNames(t *testing.T) {
	t.Parallel()
	here, there := t.TempDir(), t.TempDir()
	path, other := filepath.Join(here, "rum.toml"), filepath.Join(there, "rum.toml")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Link(path, other))
	told := follow(t, path)
	f, err := os.OpenFile(other, os.O_WRONLY, 0)
	must(t, err)
	defer f.Close() // some writers keep it open
	_, err = f.WriteString("a")
	must(t, err)
	told()
}

// Directories above a file may be busy ones, such as /tmp.
func TestWhatElseHappensAboveAFileCallsForNoLooks(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir := filepath.Join(root, "a", "b")
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "rum.toml"), nil, 0o600))
	w := filewatch.New()
	defer w.Close()
	path := []string{filepath.Join(dir, "rum.toml")}
	for told := true; told; {
		w.Expect(false, path)
		select {
		case <-w.C:
		case <-time.After(2 * filewatch.Every):
			told = false
		}
	}
	for range 100 {
		must(t, os.WriteFile(filepath.Join(root, "busy"), nil, 0o600))
		must(t, os.Remove(filepath.Join(root, "busy")))
	}
	select {
	case <-w.C:
		t.Error("told of another file in a directory above")
	case <-time.After(2 * filewatch.Every):
	}
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
	<-w.C // of what was not watched yet
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
