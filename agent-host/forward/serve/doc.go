// Package serve carries the connections of a forward between a client on the host and what
// listens in the guest: over the VM's [Link], or over its bridge where the link cannot.
//
// A [Service] is a guest port as its clients are served. It is told what listens there and
// what its rule wants, waits with clients for a service that comes back, tells the service
// its client, and keeps a [Tally] of how connections ended. It takes no lock of those who
// decide, and waits for nothing that other connections wait for.
//
// It never knows which host address a client came to, who else wants that, or whether it
// may be bound.
package serve
