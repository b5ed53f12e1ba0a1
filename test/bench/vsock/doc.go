// Command vsock runs test/bench over real AF_VSOCK, in VMs of its own: over the vsock loopback of the kernels of several
// Debian releases, to a network namespace, then over vhost-vsock, from a Debian VM to a guest of it.
//
//	go run ./test/bench/vsock [--suites bookworm,sid] [--guest=false] -- [arguments of test/bench]
//
// Where a VM is emulated, so is its guest, and of what takes time only ratios mean anything: they are to loopback TCP inside
// the VM. What the kernel counts means the same everywhere, and the program fails where a goal for that is missed.
//
// Out of scope: what test/bench does.
package main
