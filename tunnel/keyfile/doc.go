// Package keyfile is the secret that a guest agent and its host share, and the file it is kept in: one line of 64
// hexadecimal digits, or 32 raw bytes, that nobody but its owner can read. Both agents read such files.
//
// How the key is proven belongs to package tunnel, and which guest has which key to agent-host/keys.
package keyfile
