// Package remote is VMs on another host: one ssh to a relay there (package server), which lists the VMs that its user sees
// and carries connections to their guest agents and bridge addresses.
//
// It leaves to ssh who that host is and who may log in, and to links who a VM is: the relay is trusted with no more than a
// guest. What it sends is bounded by package protocol, the session by tunnel/mux.
package remote
