package keys

import (
	"errors"
	"fmt"

	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// Hint says which command ends an error of this package about the guest's key.
func Hint(name string, err error) string {
	forget := fmt.Sprintf("rum-host-agent keys forget %s", name)
	switch {
	case errors.Is(err, ErrOtherDomain):
		return "if that domain is gone, forget its key with: " + forget + "; else give this one another name"
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
