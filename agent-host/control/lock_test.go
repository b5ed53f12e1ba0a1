package control

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestALockOfAnotherUserKeepsNoAgentFromStarting has somebody hold the lock of the
// socket's folder, which anybody can who may open it.
func TestALockOfAnotherUserKeepsNoAgentFromStarting(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(t.Context(), filepath.Join(dir, "rum-host-agent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if info, err := os.Stat(filepath.Join(dir, "rum-host-agent")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder of the lock: %v, %v", info.Mode(), err)
	}
}

func TestAFolderThatOthersMadeIsNotTrustedWithTheLock(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "a"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		l, err := Listen(t.Context(), filepath.Join(dir, name+".sock"))
		if err == nil {
			_ = l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "this user alone") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
