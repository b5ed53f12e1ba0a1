// Package browser opens ports of VMs in the user's browser: where a port is on this host, the URL
// that it has there, and the rules that want that done by themselves.
package browser
