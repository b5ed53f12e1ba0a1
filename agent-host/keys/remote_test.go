package keys_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

func TestAHostIsGivenNoKeyOfAVMHere(t *testing.T) {
	const id = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
	s := keys.Store{Dir: filepath.Join(t.TempDir(), "keys")}
	if err := s.New("dev", id); err != nil {
		t.Fatal(err)
	}
	// Whatever the host says its VM's name and UUID are.
	if key, err := s.ForDomain("server/dev", keys.RemoteIdentity("server", id)); key != nil || err != nil {
		t.Errorf("the VM of another host has a key here (%v)", err)
	}
	if _, err := s.ForDomain("dev", keys.RemoteIdentity("server", id)); !errors.Is(err, keys.ErrOtherDomain) {
		t.Errorf("under the name of a VM here: %v", err)
	}
	// A host that is called as rum calls projects has no project's key either.
	if err := s.New("shop", id); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ForDomain("shop", keys.RemoteIdentity("rum-01234567", id)); !errors.Is(err, keys.ErrOtherDomain) {
		t.Errorf("of a host called as a project: %v", err)
	}
}

func TestAKeyIsForTheVMThatHasProvedItFirst(t *testing.T) {
	s := keys.Store{Dir: filepath.Join(t.TempDir(), "keys")}
	key := keyfile.New()
	if err := s.Keep("server/dev", "", key); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.BindUnbound("server/dev", keys.RemoteIdentity("server", "1")); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.ForDomain("server/dev", keys.RemoteIdentity("server", "1")); err != nil || string(got) != string(key[:]) {
		t.Errorf("it has another key now (%v)", err)
	}
	for _, other := range []string{keys.RemoteIdentity("server", "2"), keys.RemoteIdentity("other", "1"), "1"} {
		if _, err := s.ForDomain("server/dev", other); !errors.Is(err, keys.ErrOtherDomain) {
			t.Errorf("for %s: %v", other, err)
		}
		if err := s.BindUnbound("server/dev", other); !errors.Is(err, keys.ErrOtherDomain) {
			t.Errorf("binding it to %s: %v", other, err)
		}
	}
}
