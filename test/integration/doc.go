// Package integration tests both agents as the programs they are, on the real
// kernel: each guest agent runs in a network namespace of its own, so that
// /proc/net/tcp there is real and host and guest can use the same ports, and is
// reached through a unix socket.
//
// The tests run themselves again in namespaces where they are root, so they
// need no privilege and cannot collide with what else listens on the machine.
package integration
