package main

import (
	"errors"
	"fmt"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// keyStore is where this user's keys of guests are.
func keyStore() (keys.Store, error) {
	dir, err := keys.DefaultDir()
	return keys.Store{Dir: dir}, err
}

// guestKey returns the guest's key, which is made if there is none, and the store it is in.
func guestKey(name, uuid string) (keyfile.Key, keys.Store, error) {
	store, err := keyStore()
	if err != nil {
		return keyfile.Key{}, store, err
	}
	key, err := store.Ensure(name, uuid)
	return key, store, adviseOnKey(err)
}

// adviseOnKey says what to do about a key that is another domain's.
func adviseOnKey(err error) error {
	if errors.Is(err, keys.ErrOtherDomain) {
		return advise(err, "if that domain is gone, remove this file and run the command again; else choose another name")
	}
	return err
}

// domainKey looks up a domain's key. A domain without one is linked to without authentication.
func domainKey(store keys.Store) func(name, uuid string) ([]byte, error) {
	return func(name, uuid string) ([]byte, error) {
		key, err := store.Lookup(name, uuid)
		if errors.Is(err, keys.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return key[:], nil
	}
}

// ownKey gives a VM of the command line the key of its name, unless the command line named one.
func ownKey(vm *hostagent.VM) error {
	if vm.Key != nil {
		return nil
	}
	store, err := keyStore()
	if err == nil {
		vm.Key, err = domainKey(store)(vm.Name, "")
	}
	if err != nil {
		return advise(fmt.Errorf("the key of %s: %w", vm.Name, err), "without its key the VM would not have to prove who it is: mend this, or name a key with ,key=FILE")
	}
	return nil
}
