// Command vsock runs test/bench over real AF_VSOCK, in a Debian VM of its own: first over the kernel's vsock loopback,
// to a network namespace, then over vhost-vsock, to a guest of that VM.
//
//	go run ./test/bench/vsock
//
// Its arguments go to test/bench. Where the VM is emulated, so is its guest, and only ratios mean anything: they are to
// loopback TCP inside the VM.
//
// Out of scope: what test/bench does.
package main
