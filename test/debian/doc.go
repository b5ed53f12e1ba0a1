// Package debian builds bootable Debian systems for tests that need more than the small guests of package vm: a real
// init, libvirt, modules by the hundred.
//
// A system is made by mmdebstrap from Debian's packages and kept in the cache by what it consists of. Nothing is
// installed on the host. It takes root, and one to three minutes the first time.
//
// Out of scope: other distributions, and changing a system after it is made; guests write to a snapshot.
package debian
