package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// keyStore is where this user's keys of guests are.
func keyStore() (keys.Store, error) {
	dir, err := keys.DefaultDir()
	return keys.Store{Dir: dir}, err
}

// draft is the key that a command is about to give to a guest.
type draft struct {
	keyfile.Key
	store      keys.Store
	name, uuid string
	release    func() // lets another command give the guest its key
}

// draftKey returns the guest's key, or a new one that is not kept yet. Until it is released no other command gives that
// guest a key.
func draftKey(ctx context.Context, name, uuid string, stderr io.Writer) (d draft, err error) {
	d = draft{name: name, uuid: uuid}
	if d.store, err = keyStore(); err != nil {
		return d, adviseOnKey(name, err)
	}
	d.release, err = d.store.Reserve(ctx, name, func() {
		fmt.Fprintf(stderr, "waiting for another command that gives %s its key\n", clean(name))
	})
	if err != nil {
		return d, adviseOnKey(name, err)
	}
	if d.Key, err = d.store.Draft(name, uuid); err != nil {
		d.release()
	}
	return d, adviseOnKey(name, err)
}

// keep is what such a command does last, so that one which fails leaves no key that the guest does not have.
func (d draft) keep() error { return adviseOnKey(d.name, d.store.Keep(d.name, d.uuid, d.Key)) }

// adviseOnKey says what to do about an error of the store.
func adviseOnKey(name string, err error) error {
	if err == nil {
		return nil
	}
	return advise(err, keys.Hint(clean(name), err))
}

// domainUUID reads the value of a flag --uuid; none for no value.
func domainUUID(value string) (string, error) {
	if value == "" {
		return "", nil
	}
	id, err := uuid.Parse(value)
	if err != nil {
		return "", misuse(fmt.Errorf("--uuid %q: want a domain's UUID, as virsh domuuid prints it", value))
	}
	return id.String(), nil
}

// projectIdentity is what rum's ids look like in the place of a UUID.
var projectIdentity = regexp.MustCompile("^" + hostagent.ProjectIdentity("[0-9a-f]{8}") + "$")

// domainIdentity reads a UUID, or what a project's domain has in its place.
func domainIdentity(value string) (string, error) {
	if projectIdentity.MatchString(value) {
		return value, nil
	}
	id, err := uuid.Parse(value)
	if err != nil {
		return "", misuse(fmt.Errorf("%q: want a domain's UUID, as virsh domuuid prints it, or rum-ID of a project", value))
	}
	return id.String(), nil
}

// domainKey looks up a domain's key. A domain without one is linked to without authentication.
func domainKey(store keys.Store) func(name, identity string) ([]byte, error) {
	return func(name, identity string) ([]byte, error) {
		key, err := store.Lookup(name, identity)
		if errors.Is(err, keys.ErrOtherDomain) && isProject(identity) && !boundToProject(store, name) {
			// The UUID that it was made for is one that rum's domain had before.
			key, err = store.Lookup(name, "")
		}
		if errors.Is(err, keys.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return key[:], nil
	}
}

func isProject(identity string) bool {
	return strings.HasPrefix(identity, hostagent.ProjectIdentity(""))
}

// boundToProject reports whether the key of that name is for a project and no other.
func boundToProject(store keys.Store, name string) bool {
	all, err := store.List()
	return err != nil || slices.ContainsFunc(all, func(e keys.Entry) bool { return e.Name == name && isProject(e.UUID) })
}

// ownKey gives a VM of the command line the key of its name, unless the command line named one.
func ownKey(vm *hostagent.VM) error {
	if vm.Key != nil {
		return nil
	}
	store, err := keyStore()
	if err != nil {
		return adviseOnKey(vm.Name, err)
	}
	key := domainKey(store)
	vm.KeyOf = func() ([]byte, error) { return key(vm.Name, "") }
	if _, err := vm.KeyOf(); err != nil {
		err = fmt.Errorf("the key of %s: %w", vm.Name, err)
		return advise(err, "without its key the VM would not have to prove who it is: "+keys.Hint(clean(vm.Name), err)+"; or name a key with ,key=FILE")
	}
	return nil
}
