// Package reverse is forwarding the other way round: the guest listens, and its connections
// come to services of the host. A [Set] is what is to be open in one guest, as rules say; it
// tells the guest over the link, hears how each listener is, and dials for its connections.
//
// It has nothing to do with host addresses and who has them: its rules compete for
// addresses of the guest. No rule leads to this program's own control socket.
package reverse
