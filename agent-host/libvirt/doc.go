// Package libvirt finds the domains of a libvirt daemon, tells how each is reached, and prepares a domain to be reached.
//
// It speaks libvirt's remote procedure calls over the daemon's unix socket, without the C library. [Watcher] reports the
// set of domains and every change to it; [Conn] carries the operations a person asks for: [Conn.PlanSetup] and
// [Conn.Apply] give a domain its vsock device, its agent channel, its second NIC on a host-only network and a disk with a seed image,
// [Conn.PlanUndo] takes back what setup added, and [Conn.NetworkStatus] shows the host-only network.
//
// A domain's definition is edited as text: the new devices are inserted between two existing elements and every other
// byte stays, because a round trip through Go structures would drop comments, foreign namespaces and elements that a
// newer libvirt knows. What setup added carries aliases that begin with "ua-rum-"; libvirt keeps such aliases for its
// users and nothing else is ever removed.
//
// Out of scope: daemons on other machines (vsock and a virtio-serial socket exist only on the machine that runs the VM),
// hypervisors other than QEMU, and creating, starting or stopping domains. This is the only package that imports
// go-libvirt and libvirtxml.
package libvirt
