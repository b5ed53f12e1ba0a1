// Package qga runs scripts in a domain by means of the QEMU guest agent, which is another program than ours: it does in
// the guest, as root, what libvirt passes on to it over a virtio-serial port.
//
// Its commands are JSON; see its schema, qga/qapi-schema.json of QEMU. What it answers comes from the guest.
//
// Out of scope: what the scripts are (package cloudinit), and which domains there are (package libvirt).
package qga
