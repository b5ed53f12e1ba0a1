package status

import "time"

// Request is a page that a VM asks to open, and that waits for the user's answer.
type Request struct {
	ID   string `json:"id"`
	VM   string `json:"vm"`
	URL  string `json:"url,omitempty"` // whole, which may be a secret; left out of a status
	Host string `json:"host"`          // of the URL, in ASCII
	// Place is where it leads, if that is not the internet.
	Place string `json:"place,omitempty"`
	// Callbacks are the ports of localhost to which the page is told to send the user back.
	Callbacks []uint16  `json:"callbacks,omitempty"`
	AskedAt   time.Time `json:"asked_at"`
	EndsAt    time.Time `json:"ends_at"`
}
