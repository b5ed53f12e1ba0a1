// Package fdstore keeps listeners open while the agent is replaced or has crashed: in the file descriptor store of
// systemd (FDSTORE=1 of sd_notify(3)), which gives them to the next process of the unit. Clients that connect
// meanwhile wait in the kernel's queue of the listener.
//
// Listeners are sent a few hundred in a message, whose index is their name there (FDNAME=). Which listener is whose is
// in a map, a memfd in the same store under a name of its own ("map-N", the highest counts); a listener is found in it by the
// address that it has. A TCP or unix listener that is closed for good is shut down, which ends it in every process that has
// it: systemd drops what hangs up. UDP sockets have errors of their own, at which systemd would drop them, so they are not
// polled there (FDPOLL=0), and each has a message of its own by whose name it is removed.
//
//	kept        in the store, and open here
//	left        in the store, from the process before, and not open here yet
//	taken       was left, and is kept now: its owner had it opened
//	ended       was left, and nobody took it: not in its owner's first snapshot, or not within [Wait]
//
// What listens, for whom, and when an owner has told everything is not decided here.
package fdstore
