package host

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// BindError says which address could not be bound.
type BindError struct {
	At  Addr
	Err error
}

func (e *BindError) Error() string { return e.Err.Error() }
func (e *BindError) Unwrap() error { return e.Err }

// Denial says what would have to be done where the system forbids an address, if that is known.
func (e *BindError) Denial() string {
	// 1024 is PROT_SOCK of linux/net/sock.h, the default of the setting.
	if e.At.Path != "" || e.At.Addr.Port() >= 1024 {
		return e.Error()
	}
	return fmt.Sprintf("%v needs a permission; give it with: sudo sysctl -w net.ipv4.ip_unprivileged_port_start=%d",
		e.At, e.At.Addr.Port())
}

// NoAddress says that this host lacks an address.
func NoAddress(h Addr) string {
	return fmt.Sprintf("%v: this host has no such address now", h)
}

// Why says why an address could not be bound.
func Why(h Addr, err error) string {
	switch {
	case NoSuchAddress(err):
		return NoAddress(h)
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Sprintf("%v is in use", h)
	case errors.Is(err, ErrSettling):
		return fmt.Sprintf("%v %v", h, err)
	}
	return err.Error()
}

// Gone are those addresses that this host does not have.
func Gone(addrs []netip.Addr) map[netip.Addr]bool {
	gone := make(map[netip.Addr]bool)
	for _, ip := range addrs {
		if !HasAddress(ip) {
			gone[ip] = true
		}
	}
	return gone
}

// IsConflict reports whether an address could not be bound because something has it, or had it a
// moment ago.
func IsConflict(err error) bool {
	return errors.Is(err, unix.EADDRINUSE) || errors.Is(err, ErrSettling)
}

// TookNext says that the next free address was taken in the place of one that a holder has, as far
// as that is known.
func TookNext(at, next Addr, holder string) string {
	had := "in use"
	if holder != "" {
		had = "held by " + holder
	}
	return fmt.Sprintf("%v was %s, and the rule took the next free port, %d", at, had, next.Addr.Port())
}
