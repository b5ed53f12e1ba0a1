// Package process tells which process has a socket, by the socket's inode, and what may be
// asked of a process.
//
// All of it is read from procfs, within bounds: a search of /proc may take as long as a
// hundred events. Out of scope: which sockets there are (package portwatch).
package process
