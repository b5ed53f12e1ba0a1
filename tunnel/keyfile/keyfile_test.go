package keyfile_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

func TestKeyIsReadBackFromItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	want := keyfile.New()
	if err := keyfile.WritePrivate(path, want.Encode()); err != nil {
		t.Fatal(err)
	}
	got, err := keyfile.Read(path)
	if err != nil || got != want {
		t.Fatalf("read another key, error %v", err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Fatalf("key file has mode %v", info.Mode())
	}
}

func TestKeyMayBeRawBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	want := keyfile.New()
	if err := keyfile.WritePrivate(path, want[:]); err != nil {
		t.Fatal(err)
	}
	if got, err := keyfile.Read(path); err != nil || got != want {
		t.Fatalf("read another key, error %v", err)
	}
}

func TestKeysDiffer(t *testing.T) {
	if first, second := keyfile.New(), keyfile.New(); first == second {
		t.Fatal("two new keys are the same")
	}
}

func TestKeyDoesNotPrint(t *testing.T) {
	k := keyfile.New()
	secret := hex.EncodeToString(k[:4])
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if text := fmt.Sprintf(format, k); strings.Contains(text, secret) {
			t.Errorf("%s shows the key", format)
		}
	}
}

func TestExposedFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := keyfile.WritePrivate(path, keyfile.New().Encode()); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o644} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := keyfile.Read(path); !errors.Is(err, keyfile.ErrExposed) || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %v: error %v", mode, err)
		}
	}
}

func TestWhatIsNotAKeyFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"empty": "", "short": "00ff\n", "zeros": strings.Repeat("00", 32), "other": strings.Repeat("zz", 32),
		"two": strings.Repeat(strings.Repeat("ab", 32)+"\n", 2), "huge": strings.Repeat("ab", 1<<20),
	} {
		path := filepath.Join(dir, name)
		if err := keyfile.WritePrivate(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if _, err := keyfile.Read(path); err == nil || errors.Is(err, keyfile.ErrNotKey) == (name == "huge") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keyfile.Read(fifo); err == nil {
		t.Error("a FIFO was taken for a key file")
	}
	if _, err := keyfile.Read(dir); err == nil {
		t.Error("a directory was taken for a key file")
	}
	if _, err := keyfile.Read(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: error %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(keyfile.New().Encode())
	f.Add([]byte(""))
	f.Add([]byte("0123456789abcdef0123456789abcde\n"))
	f.Add([]byte(strings.Repeat("0", 64)))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := keyfile.Parse(data)
		if err != nil {
			return
		}
		if !bytes.Equal(k[:], data) && !bytes.EqualFold(k.Encode()[:64], bytes.TrimSpace(data)) {
			t.Fatalf("%q parsed as another key", data)
		}
	})
}
