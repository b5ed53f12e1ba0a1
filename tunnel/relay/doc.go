// Package relay joins two connections and copies both ways until both directions have
// ended. It knows nothing of links. What a link calls a stream is a [Stream] here: a
// connection whose descriptor does not show how it ended, so that the peer tells.
//
// Where both connections are descriptors, a pair of them is served by a loop, one thread
// that waits in epoll_wait(2) for many, and what is moved in bulk is spliced. Where one is
// a stream of a session, which has no descriptor of its own, two goroutines copy. They keep
// the phases below by where they are in their code, see relayMux.
//
// # Who owns a descriptor
//
// The kernel gives the number of a descriptor that is closed to the next that is opened, so
// a number that is used once too often is somebody else's connection. No number leaves this
// package. A [Descriptor] uses and closes its own under a lock, whoever calls; a pair takes
// the number out of two of them for as long as it lasts, and uses and closes it under the
// pair's lock; so does an [Acceptor]. What a loop was told of a registration that has been
// removed since is dropped, by the registration's serial number.
//
// # The phases of a direction
//
// A pair has two directions. Each reads from its source, and writes to its destination
// what it has read; what the destination does not take yet, it holds.
//
//	phase     its source   what it holds  becomes       because of
//	open      is read      goes out       draining      the source: reading it met its EOF or
//	                                                    an error, or the peer has told the end
//	                                                    and all has arrived
//	                                      cut           the source: the peer has told of fewer
//	                                                    bytes than came, or of a reset after
//	                                                    those that came
//	                                      stopped       the destination: it is broken
//	draining  has ended    goes out       told          the source: its end is proved, nothing
//	                                                    is held, and the destination is told
//	                                      cut           the source: its end is proved to be none
//	                                      stopped       the destination: it is broken
//	told      has ended    nothing        (final)
//	cut       has failed   goes out       (final once nothing is held)
//	                                      stopped       the destination: it is broken
//	stopped   is not read  is dropped     (final)
//
// What proves an end depends on the source. For a socket of a program it is the EOF itself;
// an error is none, and the direction is draining no longer than it takes to see that. An
// EOF of a TCP socket is none either where a write to it has met a reset before: the kernel
// tells a reset once, and what is read afterwards is EOF. For a stream neither an EOF nor an
// error says anything: the direction is draining until the peer has told how many bytes it
// sent, and the end is one if that many have arrived. A stream whose peer does not tell dies.
//
// A side is broken when a write to it or its shutdown fails, the direction from it is cut,
// its peer has told of a reset, or it is a program's socket of which a hang-up with an error
// is seen while it is not read. A pair with a broken side ends with a reset of both: when both
// directions are final and what was written to a program has been sent, or when nothing
// has moved for a second, or after 30 seconds (drainStall and drainMost). Without one it
// ends well, when both directions are told.
//
// These reset both sides at once, in any phase: a call of [Conn.Abort], a stream that dies,
// as with its link, a guest's refusal or another error of [FD.Open], and an error of the
// loop itself.
package relay
