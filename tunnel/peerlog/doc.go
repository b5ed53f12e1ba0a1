// Package peerlog keeps what a peer causes from filling the log, and a log that nobody
// reads from stopping the agent.
//
// [NewHandler] gives each peer a budget of lines; what is beyond it is counted, and the
// count is logged when there is room again. [Writer] hands lines to a goroutine that
// writes them, and drops and counts those that do not fit. [Open] is both, to where
// standard error goes.
//
// Which lines there are, and what is in them, is not decided here.
package peerlog
