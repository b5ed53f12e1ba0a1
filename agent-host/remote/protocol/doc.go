// Package protocol is what a host agent and a relay on another host say to each other over ssh, as bytes.
// The host agent trusts the relay as little as a guest: all that comes from it has a bound here.
//
// Each begins with a line, the relay with [RelayLine] and the host agent with [HostLine]. Then come frames of
// a yamux session whose client is the host agent (tunnel/mux, with resets). On its first stream the relay sends an
// [Inventory] whenever that has changed. Each other stream begins with a [Request], to which the relay gives an
// [Answer]; if that is well, the bytes behind both are those of the connection.
//
// The package opens nothing, and knows nothing of libvirt or ssh.
package protocol
