package policy

// GuestSocket is a unix socket in a guest that is to be reached from the host.
// Nothing is seen to listen there: it is forwarded whether or not it exists.
type GuestSocket struct {
	// Path is absolute.
	Path     string
	Decision Decision
}

// Sockets tells which unix sockets are forwarded in the VM of that name. It is
// called by several goroutines at once.
type Sockets func(vm string) []GuestSocket
