// Command bench compares ways to carry TCP from a host to a guest, side by side, in one run on one machine:
// loopback itself, socat twice, ssh -L, and rum agents over raw connections and over one multiplexed session.
//
// The guest is a network namespace. Everything runs in a sandbox of its own (network, process and mount namespaces),
// so the machine's ports, files and settings stay as they are, and the kernel removes whatever is left when the
// program ends, however it ends.
//
// A shared machine drifts while it is measured. So each measurement of a relay follows the same measurement of
// loopback within seconds, the ratio of those two is what is compared, and the table shows how far loopback moved.
//
// Out of scope: the virtio-vsock transport, which needs a virtual machine; and passing or failing on speed. The exit
// code says whether everything could be measured, not how fast it was.
package main
