// Package cloudinit builds what brings the guest agent, its key and both network interfaces into a virtual
// machine at its first boot: NoCloud meta-data, user-data, vendor-data and network-config, the seed image that
// carries them together with the agent's binary, and a single document for datasources that have no disk.
//
// The user's user-data stays the user's, byte for byte. Everything of ours is a boothook in vendor-data, the host
// name and SSH keys are in meta-data: cloud-init lets a user's cloud-config replace a vendor's lists (runcmd,
// write_files, users) whole, and neither replaces a boothook. The boothook runs at every boot, before
// bootcmd and before services start, and does nothing when what it carries was applied before.
// A user who does not want it writes "vendor_data: {enabled: false}".
//
// The package makes documents; it does not attach them to a domain, and it does not keep keys.
package cloudinit
