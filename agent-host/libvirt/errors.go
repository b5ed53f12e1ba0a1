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
)

// advised is an error that knows what to do about it.
type advised struct {
	error
	hint string
}

func (e *advised) Unwrap() error { return e.error }

// Advise adds to an error what to do about it, which [Hint] gives back.
func Advise(err error, hint string) error { return &advised{err, hint} }

// Hint says what to do about an error of this package, or of one that uses [Advise]; it is empty when only the error itself can be said.
func Hint(err error) string {
	if e, ok := errors.AsType[*advised](err); ok {
		return e.hint
	}
	return ""
}

// IsCode says whether err is the daemon's own error of that number.
func IsCode(err error, code golibvirt.ErrorNumber) bool {
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
		if IsCode(err, code) {
			return Advise(err, joinGroup)
		}
	}
	return err
}
