// Package server is the relay that a host agent on another machine starts by ssh: it lists the VMs here, and connects to
// their guest agents and bridge addresses, which it knows by itself. It is given no address, starts nothing, changes nothing, and
// ends with its input. What it may do is what the user may who has logged in.
package server
