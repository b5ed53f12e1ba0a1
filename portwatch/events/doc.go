// Package events has the kernel tell when sockets begin or cease to listen: programs at the
// root cgroup, or at a tracepoint, write records into a ring buffer.
//
// An event says no more than where to look. Out of scope: looking there (package
// portwatch). Of ours this package imports
// portlist alone.
package events
