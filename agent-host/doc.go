// Package hostagent is the daemon on the host: for every VM it keeps a link to
// the guest agent alive and hands what the guest announces to the forwards.
//
// Which VMs there are is told to it, by the command line or by discovery; they
// may come and go while it runs. How bytes cross into the VM is package
// tunnel's, and what listens on the host package forward's.
package hostagent
