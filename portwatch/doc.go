// Package portwatch tells which TCP and UDP sockets wait for traffic in the
// network namespace of this process, who owns them, and when that changes.
//
// A [Scanner] takes one picture; a [Watcher] takes one every 100 ms and lets
// any number of followers wait for the next difference. [Holder] answers the
// opposite question: who has the address that could not be bound.
//
// The kernel is asked in two ways. A sock_diag dump returns listening TCP and all
// UDP sockets, so its cost does not depend on how many connections are open. Where
// it is missing (a kernel without the tcp_diag and udp_diag modules) the
// tables in /proc/net are parsed instead.
//
// Out of scope: unix and vsock sockets, listeners in other network namespaces
// (containers), ports that exist as firewall rules only, and the zone of an
// IPv6 link-local address, which the kernel's tables do not carry.
package portwatch
