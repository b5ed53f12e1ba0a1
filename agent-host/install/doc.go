// Package install puts the guest agent into a VM that runs already, and takes it out
// again: which agents there are, the key that the guest gets, and a script that goes in over
// ssh or by the QEMU guest agent and proves that it has run to its end.
//
// What the script does is cloudinit's. A VM of a project is given to the package, and so
// is the libvirt daemon that it is at.
package install
