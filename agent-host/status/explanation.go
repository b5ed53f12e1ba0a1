package status

// Explanation is why a port answers on the host or does not, step by step from the program in
// the guest to the client here.
type Explanation struct {
	VM    string `json:"vm"`
	Proto string `json:"proto"`
	Port  uint16 `json:"port"` // in the guest
	// Works reports whether no step fails, as far as the agent knows without trying.
	Works bool   `json:"works"`
	Steps []Step `json:"steps"`
	// Remedy is the one thing to do; empty where nothing is.
	Remedy string `json:"remedy"`
}

// Step is one of an [Explanation].
type Step struct {
	Name string `json:"name"` // one of the steps below
	OK   bool   `json:"ok"`
	Text string `json:"text"`
}

// Names of steps, in their order.
const (
	StepListener  = "listener"     // and its process, in the guest
	StepAnnounced = "announced"    // when the host heard of it
	StepRule      = "rule"         // which decides where it goes, with its file and line
	StepHost      = "host address" // whether it is open, and who has it if not
	StepLink      = "link"         // and the path of connections
	StepLastError = "last error"   // of a connection, and its age
)

// Answer is what became of waiting for a port.
type Answer struct {
	// Answers reports whether the service has taken a connection, or, of a UDP port, listens.
	Answers bool   `json:"answers"`
	VM      string `json:"vm,omitempty"`
	// Host are the addresses on the host where it answers.
	Host []string `json:"host,omitempty"`
	// Reason is why it does not.
	Reason string `json:"reason,omitempty"`
}
