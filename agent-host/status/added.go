package status

import "time"

// AddedPrefix begins the names of the rules that commands have added; the time follows.
const AddedPrefix = "forward add at "

// Added is a forward that a command has added to the rules of a running agent, for as long
// as that runs.
type Added struct {
	VM    string `json:"vm"`
	Proto string `json:"proto"` // "tcp" or "udp"
	Host  string `json:"host"`  // a port, or a range such as "4000-4999"
	Guest string `json:"guest"` // the same of the guest
	// Hold is how long clients wait for the service, such as "5s"; empty for not at all.
	Hold    string    `json:"hold,omitempty"`
	Rule    string    `json:"rule"` // as forwards have it
	AddedAt time.Time `json:"added_at"`
	// State is that of its forward, of several one that is not active; empty where nothing
	// listens in the guest.
	State string `json:"state"`
	// InPlaceOf are the rules from which it takes ports of the guest.
	InPlaceOf []string `json:"in_place_of,omitempty"`
	Reason    string   `json:"reason"`
	// EndsAt is when it is taken back, for one that is there for the answer of a page; the zero time for as long as the agent lasts.
	EndsAt time.Time `json:"ends_at,omitzero"`
}

// Ports are those of the host and the guest, as the command has them.
func (a *Added) Ports() string { return a.Host + ":" + a.Guest }
