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
// Of the relays that carry UDP, datagrams.go measures that too; its HTTP/3 is a module of its own, in the folder http3.
//
// With --cid the guest is reached over AF_VSOCK, and runs the program's role "guest". Command vsock in the folder of that
// name does this in virtual machines: elsewhere AF_VSOCK may lead to somebody else's hypervisor.
//
// Out of scope: passing or failing on speed. The exit code says whether everything could be measured, and over AF_VSOCK
// whether the kernel counted what it should (figures.go), not how fast it was.
package main
