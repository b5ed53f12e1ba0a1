// Hostile is a guest that hates its host: it speaks the agents' wire by hand, below
// yamux, and does in each of its modes one thing that no agent does. It runs beside an
// honest guest, and prints what that costs the host agent and the honest guest's
// clients, with the bounds that hold. In other modes it is a user of the host, or a
// program in the guest, and the guest agent is the one that is measured.
//
//	hostile [--bin DIR] [--seconds N] [--rounds N] [MODE]...
//
// Each mode is run in turns with the same flood into a sink that is not ours, because
// the flood itself takes one of the machine's processors. What exceeds the bounds is
// killed.
package main
