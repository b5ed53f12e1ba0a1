package status

// Check is one thing that was looked at between a user and a forward.
type Check struct {
	Name string `json:"name"` // what: a part of the host, or the name of a VM
	OK   bool   `json:"ok"`
	Text string `json:"text"`
	// Remedy is what to do, in words, and Command what of it a shell takes; both are empty where all is well.
	Remedy  string `json:"remedy,omitempty"`
	Command string `json:"command,omitempty"`
}
