// Package cloudguest is the Debian system with cloud-init that the end-to-end tests boot: the distribution's packages, as
// its own cloud image has them, with systemd, netplan and sshd. It boots by its kernel, or from a disk by the BIOS.
//
// Out of scope: what a seed brings, and other distributions.
package cloudguest
