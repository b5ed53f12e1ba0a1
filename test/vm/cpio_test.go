package vm

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The archive is read back by another implementation.
func TestArchiveIsWhatCpioReads(t *testing.T) {
	if err := exec.Command("cpio", "--version").Run(); err != nil {
		t.Fatalf("this test needs cpio (%v); run: apt-get install cpio", err)
	}
	var archive bytes.Buffer
	w := newCPIOWriter(&archive)
	w.add("etc", modeDir|0o755, nil)
	for name, body := range map[string]string{"etc/odd": "abc", "etc/empty": "", "init": "#!/bin/sh\n"} {
		w.add(name, modeFile|0o755, []byte(body))
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cpio := exec.Command("cpio", "-i", "--quiet", "--no-preserve-owner")
	cpio.Dir, cpio.Stdin = dir, &archive
	if out, err := cpio.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v: %s", err, out)
	}
	for name, want := range map[string]string{"etc/odd": "abc", "etc/empty": "", "init": "#!/bin/sh\n"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s holds %q (%v), want %q", name, got, err, want)
		}
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode() != 0o755 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
}
