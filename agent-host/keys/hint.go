package keys

import (
	"errors"
	"fmt"

	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// OtherDomainError is an ErrOtherDomain: the key in the file Path, of the guest Name, is for the domain Bound, and was asked
// for by the domain UUID.
type OtherDomainError struct{ Path, Name, Bound, UUID string }

func (e *OtherDomainError) Error() string {
	return fmt.Sprintf("%s: key of %q is for domain %s, this one is %s: %v", e.Path, e.Name, e.Bound, e.UUID, ErrOtherDomain)
}

// Is reports that it is an ErrOtherDomain.
func (e *OtherDomainError) Is(target error) bool { return target == ErrOtherDomain }

// BringIt is how a key that was made gets to a VM, with %[1]s for its name.
const BringIt = "Bring it there with: rum-host-agent install %[1]s, or cloudinit %[1]s, or where its agent came by a package: " +
	"rum-host-agent keys export %[1]s, whose output is for /etc/rum-agent/key there (chmod 600)"

// Hint says which command ends an error of this package about the guest's key.
func Hint(name string, err error) string {
	forget := fmt.Sprintf("rum-host-agent keys forget %s", name)
	if e, ok := errors.AsType[*OtherDomainError](err); ok {
		return fmt.Sprintf("if it is the same VM, defined anew, bind its key to it with: rum-host-agent keys bind %s %s; if it is another, "+
			"and that one is gone, forget the key with: %s; else give it another name", name, e.UUID, forget)
	}
	switch {
	case errors.Is(err, ErrExists):
		return "rum-host-agent install and cloudinit use that key; for a new one: rum-host-agent keys rotate " + name
	case errors.Is(err, ErrNotFound):
		return "see what there is with: rum-host-agent keys list"
	case errors.Is(err, keyfile.ErrExposed):
		return "mend that; if somebody may have read it, make another afterwards with: rum-host-agent keys rotate " + name
	case errors.Is(err, ErrDamaged):
		return "forget it with: " + forget + "; and make another with: rum-host-agent install, or cloudinit"
	}
	return "say where keys are with XDG_STATE_HOME, or mend what the error names; rum-host-agent keys list shows all"
}
