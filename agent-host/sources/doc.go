// Package sources is where a host agent's VMs come from: libvirt daemons of this host, and other hosts.
package sources
