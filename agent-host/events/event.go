package events

import (
	"strings"
	"time"
)

// Kinds of events.
const (
	// Forwarding: the host addresses of a forward are open.
	Forwarding = "forwarding"
	// Stopped: a forward, or what waited to be one, is there no more.
	Stopped = "stopped"
	// Claim: a forward waits for a host address that something else has.
	Claim = "claim"
	// Claimed: it has that address now.
	Claimed = "claimed"
	// Denied: the system or a limit forbids a forward.
	Denied = "denied"
	// Released: the host port of a forward was given back.
	Released = "released"
	// PathChanged: new connections to a VM go another way.
	PathChanged = "path_changed"
	// VMUp: the agent of a VM answers.
	VMUp = "vm_up"
	// VMDown: it does not, or no more.
	VMDown = "vm_down"
	// AgentOutdated: the agent of a VM is not of this host agent's build.
	AgentOutdated = "agent_outdated"
	// PageAsked: a VM asks to open a page, and the user is asked.
	PageAsked = "page_asked"
	// PageOpened: a page that a VM asked for is opened.
	PageOpened = "page_opened"
	// PageRefused: it is not.
	PageRefused = "page_refused"
	// LeftOut: so many other events of the VM were more than its budget.
	LeftOut = "left_out"
	// Missed: so many events of all VMs were forgotten before the follower read them.
	Missed = "missed"
)

// Event is something that happened.
type Event struct {
	Cursor uint64    `json:"cursor"` // greater than that of all events before, also of an agent that ran earlier
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind"`
	VM     string    `json:"vm,omitempty"`
	// Proto and Port are those of the guest; Socket is a unix socket of the guest, in place of a port.
	Proto  string `json:"proto,omitempty"`
	Port   uint16 `json:"port,omitempty"`
	Socket string `json:"socket,omitempty"`
	// Host are the host addresses that are open, were open or are wanted.
	Host    []string `json:"host,omitempty"`
	Process string   `json:"process,omitempty"`
	Label   string   `json:"label,omitempty"` // of the rule
	// Rule is the rule's name, and Open what it says if it has a browser opened. They are for this program.
	Rule  string `json:"-"`
	Open  string `json:"-"`
	Words string `json:"words,omitempty"`
	// AfterSeconds is how long what ended had lasted, such as a claim that has its address now; 0 for nothing.
	AfterSeconds float64 `json:"after_seconds,omitempty"`
	Count        uint64  `json:"count,omitempty"` // of LeftOut and Missed
}

const (
	// maxWords bounds a text of an event, in bytes, and maxHost its addresses.
	maxWords = 512
	maxHost  = 8
)

// bound cuts what a guest or a rule may make long.
func (e *Event) bound() {
	e.VM, e.Process, e.Socket, e.Words = cut(e.VM), cut(e.Process), cut(e.Socket), cut(e.Words)
	e.Host = e.Host[:min(len(e.Host), maxHost)]
}

func cut(s string) string {
	if len(s) <= maxWords {
		return s
	}
	return strings.ToValidUTF8(s[:maxWords], "") + "…"
}
