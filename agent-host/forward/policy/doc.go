// Package policy decides what becomes of what listens in a guest: the rules say where each
// listener goes, [Policy.Decide] makes forwards of listeners that go together, and [Reach]
// says what gets to them. It is pure: no locks, no sockets, no clock.
//
// It never knows what listens on the host, who has a host address, or what there is room
// for; those are the package forward's.
package policy
