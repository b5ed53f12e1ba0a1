// Package wire is what the agents say to each other, as bytes: the frames of the
// handshake, the messages on the control stream, the requests that open streams and
// their answers, and the frames of a datagram stream. Each is encoded and decoded here,
// within its limits; what a later version adds is skipped unless it is marked as
// required.
//
// An [OpenRequest] may ask for the connection to be handed over: nobody will tell how the stream
// ends, and both ends take what the kernel says of it. The flag follows a feature that both
// agents had in their handshake, under its proof where there is a key; an older guest agent
// would refuse the request.
//
// What is decided by them is not here, and nothing here dials, listens or waits but for
// the bytes of the reader that it is given.
package wire
