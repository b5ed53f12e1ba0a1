package status

// GivenBack is a forward whose host port was released.
type GivenBack struct {
	VM      string   `json:"vm"`
	Proto   string   `json:"proto"`
	Port    uint16   `json:"port"` // in the guest
	Host    []string `json:"host"` // addresses that it had, or wanted
	Process string   `json:"process"`
}
