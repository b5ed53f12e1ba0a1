// Package doctor looks at everything that is between a user and a forward that works: the kernel and its settings, devices
// and who may open them, libvirt and its networks, the agent and its configuration, keys, VMs and their ports. Each check
// is a small function in a table, and says what to do where something is wrong.
//
// It changes nothing. It opens no vsock socket, because where it should not be used that may lead elsewhere: what is there
// is read from /dev, /proc and /sys.
//
// Out of scope: what is wrong in a guest, beyond what its agent tells, and how findings are shown (package output).
package doctor
