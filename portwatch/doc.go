// Package portwatch tells which TCP and UDP sockets wait for traffic in the
// network namespace of this process, who owns them, and when that changes.
//
// A [Scanner] takes one picture; a [Watcher] keeps one up to date and lets
// any number of followers wait for the next difference. [Holder] answers the
// opposite question: who has the address that could not be bound.
//
// The kernel is asked in two ways. A sock_diag dump returns listening TCP and all
// UDP sockets, so its cost does not depend on how many connections are open. Where
// it is missing (a kernel without the tcp_diag and udp_diag modules) the
// tables in /proc/net are parsed instead.
//
// What tells a Watcher to look again is, for each protocol, the best that works:
//
//	ebpf        programs on the root cgroup, told of each socket that begins or ceases
//	            to listen (package events)
//	tracepoint  a program at sock:inet_sock_set_state, for TCP
//	poll        a clock, ten times a second
//
// An event says no more than where to look. What is shown is always what the kernel's
// tables say: those of one port after an event, and all of them every 30 seconds, and
// when events got lost or the machine's networks changed. Looking uses a tenth of one
// CPU in the long run, whatever happens. What one user's sockets do is looked at 40 times a
// second in the long run, or less often among thousands; meanwhile it wakes nobody, and it
// delays nobody else's.
//
// Out of scope: unix and vsock sockets, listeners in other network namespaces
// (package netns), ports that exist as rules of the packet filter only (package nat), and the zone of an
// IPv6 link-local address, which the kernel's tables do not carry.
package portwatch
