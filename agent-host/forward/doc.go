// Package forward turns the listeners that VMs announce into listeners on the
// host, and connections to those into connections to the guest.
//
// A [Table] holds the forwards of all VMs, because they compete for the same
// host addresses: who comes first has one, the next holds a claim on it and
// gets it when it is released. A forward binds all the addresses of its rule or
// none, so that "localhost" never means the guest in one address family and
// something else in the other. Apart from them it is on the VM's own loopback
// address, where no other VM competes; see [VM.SetLoopback].
//
// The table decides who has which address, and its lock guards that. Work on thousands of
// ports is done in turns, and what takes a moment comes in between. How much anybody may
// have is counted by the package room, what else is at the host's addresses is known to
// host, and clients are served, once a listener is open, by serve and datagrams.
//
// Either end of a forward can be a unix socket. A reverse rule is the other way
// round: the guest listens, and the host dials; those rules compete for addresses
// of the guest, so they have nothing to do with claims here.
//
// How a VM is reached is told to the package through [VM.SetLink] and
// [VM.SetBridge]; finding VMs, dialling their agents and deciding when a VM's
// forwards go is done elsewhere. What is forwarded where is decided by the package policy,
// with rules that are functions: the package imports neither libvirt nor config, and nothing
// that shows its status.
package forward
