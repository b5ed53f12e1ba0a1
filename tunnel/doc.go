// Package tunnel is what crosses the boundary between a VM and its host.
//
// An [endpoint.Endpoint] says how to reach a guest agent. [Dial] connects to one,
// proves the key and returns a [Link]; [Server] is the guest's end. A link is
// one session of package mux whose first stream is the control stream: the guest
// announces its listeners there as a snapshot and then deltas, the host sends
// heartbeats, and both tell each other how each forwarded connection ended.
//
// A forwarded connection is a [stream.Stream]. Where the endpoint allows many
// connections (vsock, hybrid, unix) a stream is a raw connection of its own,
// opened with a token from the handshake; where there is only one (serial,
// exec) it is a yamux stream. Either way its end is clean only when the sender
// has told apart from it how many bytes were sent and they all arrived, because
// a vsock reset, a killed agent and an ended yamux session all read as EOF.
// It is told on the control stream, or on a connection for that alone. A reset
// carries the count too, and goes out at the other end after that many bytes, or
// when nothing has moved for a second.
//
// [relay.Relay] joins a stream and a connection of TCP or of a unix socket. Where both
// are descriptors it is an epoll loop that moves the bytes, with splice(2) when
// there are many; where one is a yamux stream it takes two goroutines.
//
// A client that an [relay.Acceptor] accepts can be relayed by that loop from the
// beginning ([Link.RelayNow]), and a loop in the guest takes the request. Such a
// stream leaves its raw connection open. When both directions have come to a
// clean end and the guest has said that it read everything, it carries the next. So does
// a stream that [Link.Open] opens by way of another host, on one of the session with that.
//
// A host can have listeners in the guest ([Link.SetReverse]). Their connections are
// yamux streams that the guest opens; it names the listener, never what is to be
// reached, and any other stream of a guest is refused.
//
// UDP has one stream per VM, a datagram stream ([udp.Datagrams]). Its frames carry a
// flow's number and a whole datagram; what there is no room for is dropped and
// counted. The guest has a socket for each flow ([udp.Flows]), so that a service tells
// clients apart; one that answers from another port than it was asked at, as TFTP
// does, is followed there. Multicast is not served.
//
// What this package is made of has packages of its own: wire (messages and frames as
// bytes), endpoint (where agents meet), handshake, mux (a session whose peer is not
// trusted), stream (a forwarded connection, and the truth about its end), relay (what
// joins two connections), udp, announce (the set of listeners), dial (services of this
// machine), strangers (connections that have not said what they are), reserve (descriptors
// that connections may not take), keyfile, budget, clock, and peerlog for the agents' logs.
//
// Which ports are listening, what is opened on the host for them, and when to
// dial again after a link is lost are not decided here.
package tunnel
