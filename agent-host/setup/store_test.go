package setup_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/setup"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

const system = "qemu:///system"

func newStore(t *testing.T) setup.Store {
	return setup.Store{Path: filepath.Join(t.TempDir(), "rum-agent", "setup.json")}
}

func put(t *testing.T, s setup.Store, setup setup.Record) {
	t.Helper()
	if err := s.Put(setup); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, s setup.Store) []string {
	t.Helper()
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, one := range all {
		out = append(out, one.Domain)
	}
	return out
}

func TestASetupIsRememberedUntilItIsForgotten(t *testing.T) {
	s := newStore(t)
	if was, err := s.Forget(system, "dev"); was || err != nil {
		t.Errorf("%v, %v", was, err)
	}
	if _, err := os.Stat(filepath.Dir(s.Path)); err == nil {
		t.Error("forgetting nothing made a directory")
	}
	first := setup.Record{Daemon: system, Domain: "dev", UUID: "1", MACsOf: "1", HostOnly: "rum-hostonly", Subnet: netip.MustParsePrefix("192.168.50.0/24"), NAT: "default", Seed: "/seed.iso", Rum: true}
	put(t, s, first)
	put(t, s, setup.Record{Daemon: "qemu:///session", Domain: "dev", UUID: "2"})
	put(t, s, setup.Record{Daemon: system, Domain: "web", UUID: "3"})
	if got, ok, err := s.Find(system, "dev"); got != first || !ok || err != nil {
		t.Errorf("%+v, %v, %v", got, ok, err)
	}
	second := first
	second.UUID = "4"
	put(t, s, second)
	if got, _, _ := s.Find(system, "dev"); got != second {
		t.Errorf("%+v", got)
	}
	if got := names(t, s); fmt.Sprint(got) != "[dev web dev]" {
		t.Errorf("%v", got)
	}
	if was, err := s.Forget(system, "dev"); !was || err != nil {
		t.Errorf("%v, %v", was, err)
	}
	if got := names(t, s); fmt.Sprint(got) != "[dev web]" {
		t.Errorf("%v", got)
	}
}

func TestWhatIsRememberedIsPrivate(t *testing.T) {
	s := newStore(t)
	put(t, s, setup.Record{Daemon: system, Domain: "dev"})
	for path, want := range map[string]os.FileMode{filepath.Dir(s.Path): 0o700, s.Path: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if err := os.Chmod(s.Path, 0o622); err != nil {
		t.Fatal(err)
	}
	if _, err := s.List(); !errors.Is(err, keyfile.ErrExposed) {
		t.Errorf("%v", err)
	}
}

func TestWhatIsRememberedHasABound(t *testing.T) {
	s := newStore(t)
	const longest = 400 << 10
	for i := range 5 {
		put(t, s, setup.Record{Daemon: system, Domain: fmt.Sprint(i), Seed: strings.Repeat("x", longest)})
	}
	if got := names(t, s); fmt.Sprint(got) != "[3 4]" {
		t.Errorf("%v", got)
	}
	if err := s.Put(setup.Record{Daemon: system, Domain: strings.Repeat("x", 2<<20)}); !errors.Is(err, setup.ErrTooLong) {
		t.Errorf("%v", err)
	}
	var many strings.Builder
	many.WriteString("[")
	for i := range 1000 {
		fmt.Fprintf(&many, `{"daemon":%q,"domain":"d%d"},`, system, i)
	}
	if err := keyfile.WritePrivate(s.Path, []byte(strings.TrimSuffix(many.String(), ",")+"]")); err != nil {
		t.Fatal(err)
	}
	put(t, s, setup.Record{Daemon: system, Domain: "last"})
	if got := names(t, s); len(got) != 1000 || got[0] != "d1" || got[999] != "last" {
		t.Errorf("%d: %v", len(got), got)
	}
}

func TestADamagedFileIsNoEmptyOne(t *testing.T) {
	s := newStore(t)
	put(t, s, setup.Record{Daemon: system, Domain: "dev"})
	for _, text := range []string{"", "{", `[{"subnet":"x"}]`, strings.Repeat(" ", 2<<20)} {
		if err := keyfile.WritePrivate(s.Path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		_, errList := s.List()
		_, errForget := s.Forget(system, "dev")
		for _, err := range []error{errList, errForget, s.Put(setup.Record{})} {
			if err == nil || !strings.Contains(err.Error(), s.Path) {
				t.Errorf("%.10q: %v", text, err)
			}
		}
	}
}

func TestConcurrentCommandsForgetNothing(t *testing.T) {
	s := newStore(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if err := s.Put(setup.Record{Daemon: system, Domain: fmt.Sprint(i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := names(t, s); len(got) != 16 {
		t.Errorf("%v", got)
	}
}
