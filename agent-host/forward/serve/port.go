package serve

import "github.com/rum-vm/rum-agent/agent-host/forward/policy"

// ProtoReverse stands for a protocol where a port is that of a reverse rule.
const ProtoReverse = "reverse"

// Port is a guest port, or unix socket, as it is measured.
type Port struct {
	Key   policy.Key
	Open  bool   // every host address of its rule listens
	Tally *Tally // goes on counting
}
