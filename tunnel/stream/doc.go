// Package stream is one forwarded connection as it crosses the boundary between a VM
// and its host, and what both agents tell each other about how it ends.
//
// A [Stream] is carried by a raw connection of its own, or by a stream of the link's
// session. Either reads as EOF when it was cut, so only what the peer tells apart from it
// ([Ends]: how many bytes it sent, or that it was reset) makes an end a clean one. What is
// told goes over the control stream, or over a connection for that alone ([EndsConn]).
// A raw connection whose stream has come to a clean end in both directions, and that the
// guest has released, carries the next ([Pool]).
//
// It knows nothing of links, targets and listeners: who makes a stream says what it is for.
package stream
