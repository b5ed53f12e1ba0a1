package main

import (
	"fmt"
	"regexp"

	"github.com/google/uuid"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

// domainUUID reads the value of a flag --uuid; none for no value.
func domainUUID(value string) (string, error) {
	if value == "" {
		return "", nil
	}
	id, err := uuid.Parse(value)
	if err != nil {
		return "", output.Misuse(fmt.Errorf("--uuid %q: want a domain's UUID, as virsh domuuid prints it", value))
	}
	return id.String(), nil
}

// projectIdentity is what rum's ids look like in the place of a UUID.
var projectIdentity = regexp.MustCompile("^" + keys.ProjectIdentity("[0-9a-f]{8}") + "$")

// domainIdentity reads a UUID, or what a project's domain has in its place.
func domainIdentity(value string) (string, error) {
	if projectIdentity.MatchString(value) {
		return value, nil
	}
	id, err := uuid.Parse(value)
	if err != nil {
		return "", output.Misuse(fmt.Errorf("%q: want a domain's UUID, as virsh domuuid prints it, or rum-ID of a project", value))
	}
	return id.String(), nil
}

// ownKey gives a VM of the command line the key of its name, unless the command line named one.
func ownKey(vm *hostagent.VM) error {
	if vm.Key != nil {
		return nil
	}
	store, err := keys.Default()
	if err != nil {
		return output.Advise(err, keys.Hint(output.Clean(vm.Name), err))
	}
	vm.KeyOf = func() ([]byte, error) { return store.ForDomain(vm.Name, "") }
	if _, err := vm.KeyOf(); err != nil {
		err = fmt.Errorf("the key of %s: %w", vm.Name, err)
		return output.Advise(err, "without its key the VM would not have to prove who it is: "+keys.Hint(output.Clean(vm.Name), err)+"; or name a key with ,key=FILE")
	}
	return nil
}
