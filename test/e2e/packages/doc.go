// Package packages has what users of the packages do, in a Debian VM with systemd: the user's agent serves a guest, is
// upgraded by dpkg under clients, crashes, and is purged. The guest is a network namespace of the VM.
//
// The packages are those that test/packages.sh builds, which tries them without systemd, and rpm's.
package packages
