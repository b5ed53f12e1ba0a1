// Package e2e boots a Debian system, made of the distribution's packages, with a seed image: cloud-init, systemd and
// netplan are the real ones, and so are both agents. The tests need the build tag e2e, root and the packages of `make
// deps`; the system's image is built once and kept in the cache.
package e2e
