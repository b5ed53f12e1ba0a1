// Package vm boots small real Linux guests for tests and for the demo.
//
// A guest is the distribution's own kernel package, unpacked into a cache and
// never installed, and an initramfs with a static busybox, the virtio modules
// the kernel needs, and optionally rum-guest-agent. It runs in QEMU without
// any network unless [Config.Nets] asks for one, and it never outlives the
// process that started it.
//
// [Start] boots one; [VM.Run] runs a shell command in it over a virtio-serial
// port of its own, so tests need neither a network nor the agent to look
// inside; [VM.Pause], [VM.Resume] and [VM.Reset] drive it by QMP. The parts
// are usable alone: [FetchKernel] and [Initramfs.Write] give a kernel and an
// initramfs to whoever boots guests by other means, such as libvirt, and a
// guest with a disk of its own is booted by [Config.Boot] and [Config.Disks].
//
// Out of scope: installing packages (a missing one is an error that names the
// apt line), architectures other than the host's, and anything a production
// program would need.
package vm
