// Package e2e, of containers: what Podman runs in a Debian guest, published or not, is on
// the host. It needs the build tag e2e, and root for the guest's image.
package e2e
