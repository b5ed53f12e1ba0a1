// Package interop holds docs/protocol.md to what the host agent speaks: agent.py is a small
// guest agent in another language, written from that document, and the tests here have the host
// agent serve its ports.
package interop
