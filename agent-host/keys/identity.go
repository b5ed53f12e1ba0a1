package keys

import (
	"errors"
	"slices"
	"strings"
)

// ProjectIdentity is what tells the VM of a project from all others, as the UUID does for other domains: rum defines the
// domain anew with another UUID.
func ProjectIdentity(id string) string { return "rum-" + id }

// RemoteIdentity is that of a VM on another host, which chooses the UUID: none that this gives is a local VM's.
func RemoteIdentity(host, uuid string) string { return "ssh://" + host + "/" + uuid }

func isProject(identity string) bool {
	return strings.HasPrefix(identity, ProjectIdentity(""))
}

// BoundToProject reports whether the key of that name is for a project and no other.
func (s Store) BoundToProject(name string) bool {
	all, err := s.List()
	return err != nil || slices.ContainsFunc(all, func(e Entry) bool { return e.Name == name && isProject(e.UUID) })
}

// BindUnbound has the key of that name be for the VM of an identity and for no other, unless it is for one already.
func (s Store) BindUnbound(name, identity string) error {
	key, err := s.Lookup(name, identity)
	if err != nil {
		return err
	}
	return s.Keep(name, identity, key)
}

// ForDomain looks up the key of a domain by its name and identity: its UUID, or
// [ProjectIdentity]. A domain without one has nil, and is linked to without authentication.
func (s Store) ForDomain(name, identity string) ([]byte, error) {
	key, err := s.Lookup(name, identity)
	if errors.Is(err, ErrOtherDomain) && isProject(identity) && !s.BoundToProject(name) {
		// The UUID that it was made for is one that rum's domain had before.
		key, err = s.Lookup(name, "")
	}
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return key[:], nil
}
