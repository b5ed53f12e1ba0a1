package keys_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

const (
	uuidA = "6f3c1a52-0d8e-4c7e-9b51-2f6f0a7d1c01"
	uuidB = "9d2f4b60-58a1-4a3d-8f0e-6b1c9e5d7a02"
)

func newStore(t *testing.T) keys.Store {
	return keys.Store{Dir: filepath.Join(t.TempDir(), "state", "keys")}
}

// ensure is what a command does that brings a guest its key.
func ensure(s keys.Store, name, uuid string) (keyfile.Key, error) {
	key, err := s.Draft(name, uuid)
	if err != nil {
		return key, err
	}
	return key, s.Keep(name, uuid, key)
}

func mustEnsure(t *testing.T, s keys.Store, name, uuid string) keyfile.Key {
	t.Helper()
	key, err := ensure(s, name, uuid)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestKeyStaysTheSame(t *testing.T) {
	s := newStore(t)
	if _, err := s.Lookup("dev", uuidA); !errors.Is(err, keys.ErrNotFound) {
		t.Fatalf("before there is a key: %v", err)
	}
	key := mustEnsure(t, s, "dev", "")
	if again := mustEnsure(t, s, "dev", ""); again != key {
		t.Error("a second command made another key")
	}
	if got, err := s.Lookup("dev", uuidA); err != nil || got != key {
		t.Errorf("Lookup: another key, error %v", err)
	}
	if other := mustEnsure(t, s, "other", ""); other == key {
		t.Error("two guests have one key")
	}
}

func TestKeyOfAnotherDomainIsNotUsed(t *testing.T) {
	s := newStore(t)
	key := mustEnsure(t, s, "dev", "")
	if bound := mustEnsure(t, s, "dev", uuidA); bound != key {
		t.Error("binding a UUID changed the key")
	}
	for _, uuid := range []string{"", uuidA, strings.ToUpper(uuidA)} {
		if got, err := s.Lookup("dev", uuid); err != nil || got != key {
			t.Errorf("Lookup with UUID %q: error %v", uuid, err)
		}
	}
	if _, err := s.Lookup("dev", uuidB); !errors.Is(err, keys.ErrOtherDomain) || errors.Is(err, keys.ErrNotFound) {
		t.Errorf("Lookup of another domain: %v", err)
	}
	if _, err := ensure(s, "dev", uuidB); !errors.Is(err, keys.ErrOtherDomain) {
		t.Errorf("Draft of another domain: %v", err)
	}
	if err := s.Remove("dev"); err != nil {
		t.Fatal(err)
	}
	if mustEnsure(t, s, "dev", uuidB) == key {
		t.Error("the removed key came back")
	}
}

func TestADraftLeavesNoKey(t *testing.T) {
	s := newStore(t)
	if _, err := s.Draft("dev", uuidA); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lookup("dev", uuidA); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("after a draft: %v", err)
	}
	if all, err := s.List(); err != nil || len(all) != 0 {
		t.Errorf("the list has %v, error %v", all, err)
	}
}

func TestRotateKeepsTheDomain(t *testing.T) {
	s := newStore(t)
	if err := s.Rotate("dev"); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("without a key: %v", err)
	}
	before := mustEnsure(t, s, "dev", uuidA)
	if err := s.New("dev", ""); !errors.Is(err, keys.ErrExists) {
		t.Errorf("a second new key: %v", err)
	}
	if err := s.Rotate("dev"); err != nil {
		t.Fatal(err)
	}
	if key, err := s.Lookup("dev", uuidA); err != nil || key == before {
		t.Errorf("the same key as before, error %v", err)
	}
	if _, err := s.Lookup("dev", uuidB); !errors.Is(err, keys.ErrOtherDomain) {
		t.Errorf("another domain: %v", err)
	}
}

func TestAKeyIsBoundToTheDomainThatItIsToBeFor(t *testing.T) {
	s := newStore(t)
	if err := s.Bind("dev", uuidB); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("without a key: %v", err)
	}
	key := mustEnsure(t, s, "dev", uuidA)
	if err := s.Bind("dev", uuidB); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Lookup("dev", uuidB); err != nil || got != key {
		t.Errorf("another key, error %v", err)
	}
	_, err := s.Lookup("dev", uuidA)
	if e, ok := errors.AsType[*keys.OtherDomainError](err); !ok || !errors.Is(err, keys.ErrOtherDomain) || e.Bound != uuidB || e.UUID != uuidA {
		t.Errorf("the domain that it was for: %v", err)
	}
}

func TestListNamesKeysAndWhatIsWrongWithThem(t *testing.T) {
	s := newStore(t)
	if all, err := s.List(); err != nil || len(all) != 0 {
		t.Fatalf("without a directory: %v, error %v", all, err)
	}
	mustEnsure(t, s, "a/b", uuidA)
	mustEnsure(t, s, "dev", "")
	if err := os.WriteFile(filepath.Join(s.Dir, "dev.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := s.List()
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, error %v", all, err)
	}
	if e := all[0]; e.Name != "a/b" || e.UUID != uuidA || e.Err != nil || e.Made.IsZero() {
		t.Errorf("%+v", e)
	}
	if e := all[1]; e.Name != "dev" || !errors.Is(e.Err, keys.ErrDamaged) {
		t.Errorf("%+v", e)
	}
	if err := s.Remove("dev"); err != nil {
		t.Errorf("a damaged key is not forgotten: %v", err)
	}
	if err := s.Remove("dev"); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("the second time: %v", err)
	}
}

func TestStoreIsPrivate(t *testing.T) {
	s := newStore(t)
	mustEnsure(t, s, "dev", uuidA)
	file := filepath.Join(s.Dir, "dev.json")
	for path, want := range map[string]os.FileMode{s.Dir: 0o700, file: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, error %v", path, info.Mode(), err)
		}
	}
	for path, modes := range map[string][2]os.FileMode{s.Dir: {0o755, 0o700}, file: {0o640, 0o600}} {
		if err := os.Chmod(path, modes[0]); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Lookup("dev", uuidA); !errors.Is(err, keyfile.ErrExposed) {
			t.Errorf("%s with mode %v: %v", path, modes[0], err)
		}
		if _, err := ensure(s, "dev", uuidA); !errors.Is(err, keyfile.ErrExposed) {
			t.Errorf("%s with mode %v: %v", path, modes[0], err)
		}
		if err := os.Chmod(path, modes[1]); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNamesStayInsideTheDirectory(t *testing.T) {
	s := newStore(t)
	names := []string{"..", ".", "../../etc/passwd", "a/b", "tab\tand\nnewline", "größe", "%2e%2e", ".lock"}
	seen := make(map[keyfile.Key]string)
	for _, name := range names {
		key := mustEnsure(t, s, name, "")
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %q share a key", name, other)
		}
		seen[key] = name
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(names)+1 { // and the lock
		t.Errorf("%d files for %d names: %v", len(entries), len(names), entries)
	}
	for _, name := range []string{"", strings.Repeat("x", 300)} {
		if _, err := ensure(s, name, ""); err == nil {
			t.Errorf("a name of %d characters was accepted", len(name))
		}
		if _, err := s.Lookup(name, uuidA); !errors.Is(err, keys.ErrNotFound) {
			t.Errorf("the key of a name of %d characters: %v", len(name), err)
		}
	}
}

func TestDamagedOrCopiedRecordIsRefused(t *testing.T) {
	s := newStore(t)
	mustEnsure(t, s, "dev", "")
	data, err := os.ReadFile(filepath.Join(s.Dir, "dev.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"copy": string(data), "cut": string(data[:20]), "empty": "", "null": "null"} {
		path := filepath.Join(s.Dir, name+".json")
		if err := keyfile.WritePrivate(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if _, err := ensure(s, name, ""); err == nil || errors.Is(err, keys.ErrNotFound) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestConcurrentCommandsAgreeOnOneKey(t *testing.T) {
	s := newStore(t)
	got := make([]keyfile.Key, 32)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			uuid := ""
			if i%2 == 0 {
				uuid = uuidA
			}
			key, err := ensure(keys.Store{Dir: s.Dir}, "dev", uuid)
			for errors.Is(err, keys.ErrExists) { // made by another meanwhile
				key, err = ensure(keys.Store{Dir: s.Dir}, "dev", uuid)
			}
			if err != nil {
				t.Error(err)
			}
			got[i] = key
		})
	}
	wg.Wait()
	for i := range got {
		if got[i] != got[0] {
			t.Fatal("two callers have different keys")
		}
	}
	if _, err := s.Lookup("dev", uuidB); !errors.Is(err, keys.ErrOtherDomain) {
		t.Errorf("the UUID was lost: %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(s.Dir, ".dev*"))
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDefaultDirIsPerUser(t *testing.T) {
	own := "/home/me/.local/state/rum-agent/keys"
	if os.Geteuid() == 0 {
		own = "/var/lib/rum-agent/keys"
	}
	t.Setenv("HOME", "/home/me")
	for state, want := range map[string]string{"/somewhere": "/somewhere/rum-agent/keys", "": own, "relative": own} {
		t.Setenv("XDG_STATE_HOME", state)
		if dir, err := keys.DefaultDir(); err != nil || dir != want {
			t.Errorf("with %q: %q, %v", state, dir, err)
		}
	}
}

func TestWhoGivesAGuestItsKeyWaitsForWhoDoesAlready(t *testing.T) {
	s := newStore(t)
	waited := func() { t.Error("it waited for nobody") }
	release, err := s.Reserve(t.Context(), "dev", waited)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := s.Reserve(t.Context(), "other", waited); err != nil {
		t.Fatal(err)
	} else {
		other()
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := s.Reserve(ctx, "dev", cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("the end of its time: %v", err)
	}
	again, err := s.Reserve(t.Context(), "dev", release)
	if err != nil {
		t.Fatal(err)
	}
	again()
	if all, err := s.List(); len(all) > 0 || err != nil {
		t.Errorf("%+v, %v", all, err)
	}
}
