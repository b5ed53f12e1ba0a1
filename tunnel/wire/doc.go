// Package wire is what the agents say to each other, as bytes: the frames of the
// handshake, the messages on the control stream, the requests that open streams and
// their answers, and the frames of a datagram stream. Each is encoded and decoded here,
// within its limits; what a later version adds is skipped unless it is marked as
// required.
//
// What is decided by them is not here, and nothing here dials, listens or waits but for
// the bytes of the reader that it is given.
package wire
