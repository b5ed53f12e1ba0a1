// Command detect measures how soon a port of a guest is there on the host, and gone
// again: from listen() returning in the guest to the first answered request through the
// host's port, and from close() to the first refused one. The guest is a network
// namespace with the agents talking over a unix socket, and then a VM with a virtio-serial
// port. Each source of events is measured by taking the better ones away from the guest agent.
// What happens in the VM is told by its clock, which is compared with this machine's before
// each time.
//
// A server that is stopped and started again is asked at once, each time: that is measured
// in the same way. So is an agent that is started after a long absence, until a service that
// listens is there, and a look at everything beside tens of thousands of sockets.
//
// It also counts what both agents do while nothing happens: context switches and
// processor time.
//
// The client tries again and again with a short sleep between. It and the TCP server it asks are in system
// calls of threads of their own, as most programs are: what a runtime adds is no part of this. This machine may be
// busy: how much later than asked a sleep of one millisecond ended meanwhile is printed
// beside each row.
//
// Out of scope: passing or failing on speed.
package main
