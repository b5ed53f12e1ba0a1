// Package e2e runs the libvirt side of rum agents against a real libvirtd with real guests.
//
// The test binary starts itself again in mount, network, process and IPC namespaces of its own. There it has its own
// /run, /etc/libvirt and /var/lib/libvirt, starts dbus-daemon, virtlogd and libvirtd, and boots guests by them. When it
// ends, the kernel ends every process in the namespace; nothing is left on the machine, whatever happened.
//
//	go test -tags e2e ./test/e2e/libvirt/
//
// It needs root and the packages that its error names.
package e2e
