// Command detect measures how soon a port of a guest is there on the host, and gone
// again: from listen() returning in the guest to the first answered request through the
// host's port, and from close() to the first refused one. The guest is a network
// namespace, the agents talk over a unix socket. Each source of events is measured by
// taking the better ones away from the guest agent.
//
// A server that is stopped and started again is asked at once, each time: that is measured
// in the same way. So is a look at everything beside tens of thousands of sockets.
//
// It also counts what both agents do while nothing happens: context switches and
// processor time.
//
// The client tries again and again with a short sleep between, and this machine may be
// busy: how much later than asked a sleep of one millisecond ended meanwhile is printed
// beside each row.
//
// Out of scope: passing or failing on speed.
package main
