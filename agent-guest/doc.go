// Package guestagent is the agent inside the VM: it watches which sockets
// listen, announces them to every host agent that connects, and connects what
// the hosts forward.
//
// The wire and the relaying are package tunnel's, the watching is package
// portwatch's. What is forwarded to where is decided on the host.
package guestagent
