package keys_test

import (
	"errors"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/keys"
)

// TestTheKeyOfAProjectsDomainOutlivesItsUUID: rum defines the domain anew, and libvirt gives it another UUID.
func TestTheKeyOfAProjectsDomainOutlivesItsUUID(t *testing.T) {
	store := keys.Store{Dir: t.TempDir() + "/keys"}
	lookup := store.ForDomain
	const old, other = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
	for name, uuid := range map[string]string{"shop": old, "free": "", "mine": keys.ProjectIdentity("aaaaaaaa")} {
		if err := store.New(name, uuid); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		name, identity string
		found          bool
		err            error
	}{
		{"shop", keys.ProjectIdentity("aaaaaaaa"), true, nil},
		{"shop", old, true, nil},
		{"shop", other, false, keys.ErrOtherDomain},
		{"free", keys.ProjectIdentity("aaaaaaaa"), true, nil},
		{"free", other, true, nil},
		{"mine", keys.ProjectIdentity("aaaaaaaa"), true, nil},
		{"mine", keys.ProjectIdentity("bbbbbbbb"), false, keys.ErrOtherDomain},
		{"mine", other, false, keys.ErrOtherDomain},
		{"none", keys.ProjectIdentity("aaaaaaaa"), false, nil},
	} {
		key, err := lookup(row.name, row.identity)
		if (key != nil) != row.found || !errors.Is(err, row.err) {
			t.Errorf("%s, %s: found %v, error %v", row.name, row.identity, key != nil, err)
		}
	}
}
