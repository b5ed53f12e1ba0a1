package status

import "slices"

// Discovery is a source of VMs.
type Discovery struct {
	Source string `json:"source"` // such as "qemu:///system"
	Error  string `json:"error"`  // why it does not answer, and what to do; its VMs are those last seen
	// Host is the name of another host, which its VMs have as [VM.Host], and State whether there is a connection to that:
	// Connecting, Connected or Down. Both are empty where the source is of this host.
	Host  string `json:"host,omitempty"`
	State string `json:"state,omitempty"`
}

// Answered is the source after it has answered, or has not, as the reason says.
func (d Discovery) Answered(why string) Discovery {
	d.Error = why
	switch {
	case d.Host == "":
	case why == "":
		d.State = Connected
	default:
		d.State = Down
	}
	return d
}

// Sources are where VMs are looked for.
type Sources []Discovery

// Note takes in what is known of a source now.
func (s *Sources) Note(now Discovery) {
	i := slices.IndexFunc(*s, func(d Discovery) bool { return d.Source == now.Source })
	if i < 0 {
		*s = append(*s, now)
		return
	}
	(*s)[i] = now
}
