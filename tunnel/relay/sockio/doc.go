// Package sockio reads and writes sockets by system calls that do not block, and that Go's scheduler is not told of.
//
// Of a call that it is told of it waits to see whether it takes long: a thread of the runtime looks every 20 us, and
// gives the processor of the goroutine to another thread. Where many short messages pass, a write that wakes who reads
// them takes longer often enough for that to cost more than what is called.
//
// Who opens and closes a socket is not decided here.
package sockio
