package libvirt

import (
	"errors"

	golibvirt "github.com/digitalocean/go-libvirt"
)

var (
	// ErrUnavailable: no daemon answers, or it does not let this user in.
	ErrUnavailable = errors.New("libvirt is not available")
	// ErrNoDomain: the daemon has no domain of that name or UUID.
	ErrNoDomain = errors.New("no such domain")
	// ErrTransient: the domain has no stored definition that could be changed.
	ErrTransient = errors.New("domain is transient")
	// ErrSubnetTaken: the subnet of the host-only network overlaps one that the host already uses.
	ErrSubnetTaken = errors.New("subnet is taken")
	// ErrChanged: the domain is not as it was when the plan was made.
	ErrChanged = errors.New("domain was changed in the meantime")
	// ErrRefused: libvirt does not take a device, mostly because the machine has no room for it.
	ErrRefused = errors.New("cannot be added")
	// ErrSecondSeed: the domain has a volume already that cloud-init takes for its seed.
	ErrSecondSeed = errors.New("has a seed volume already")
)

// advised is an error that knows what to do about it.
type advised struct {
	error
	hint string
}

func (e *advised) Unwrap() error { return e.error }

func advise(err error, hint string) error { return &advised{err, hint} }

// Hint says what to do about an error of this package; it is empty when only the error itself can be said.
func Hint(err error) string {
	if e, ok := errors.AsType[*advised](err); ok {
		return e.hint
	}
	return ""
}

// isCode says whether err is the daemon's own error of that number.
func isCode(err error, code golibvirt.ErrorNumber) bool {
	e, ok := errors.AsType[golibvirt.Error](err)
	return ok && e.Code == uint32(code)
}

const joinGroup = "add yourself to the group libvirt and log in again: sudo usermod -aG libvirt $USER"

// adviseOnOpening adds what to do when the daemon let the user connect and then does not let them in, which it says in the
// words of polkit.
func adviseOnOpening(err error) error {
	for _, code := range []golibvirt.ErrorNumber{
		golibvirt.ErrAuthFailed, golibvirt.ErrAuthCancelled, golibvirt.ErrAuthUnavailable, golibvirt.ErrAccessDenied,
	} {
		if isCode(err, code) {
			return advise(err, joinGroup)
		}
	}
	return err
}
