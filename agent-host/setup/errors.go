package setup

import "errors"

var (
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
