// Package metrics tells Prometheus what an agent measures.
//
// Nothing is counted here: a [Collector] reads, when it is asked, what the agent counts anyway. A guest chooses how many
// ports it has, so that [MaxPorts] of a VM have series of their own and the others are summed. Series go with their port
// and their VM.
//
// Out of scope: what is counted (packages serve and relay), and the control socket, which has a [Handler] of this package
// among its paths.
package metrics
