// Package libvirt finds the domains of a libvirt daemon and tells how each is reached. It only reads: what changes
// domains and networks is the package setup.
//
// It speaks libvirt's remote procedure calls over the daemon's unix socket, without the C library. [Watcher] reports the
// set of domains and every change to it; [Conn] answers what a person or setup asks: [Conn.Find] for a domain,
// [Conn.NetworkStatus] for a network with its leases. A domain's definition is read by [ParseDefinition].
//
// Out of scope: daemons on other machines (vsock and a virtio-serial socket exist only on the machine that runs the VM),
// hypervisors other than QEMU, and creating, starting or stopping domains. This package imports none of ours.
package libvirt
