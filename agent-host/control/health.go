package control

import (
	"encoding/json"
	"net/http"
)

const healthPath = "/v1/health"

// health is the answer of the API.
type health struct {
	Healthy bool   `json:"healthy"`
	Version string `json:"version"`
	PID     int    `json:"pid"`
	// Problems are what keeps the agent from doing all that it should.
	Problems []string `json:"problems"`
}

// health tells whether all is as it should be with the agent itself, whatever its VMs do. If not,
// the HTTP status is 503.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	st := s.Status()
	h := health{Version: st.Version, PID: st.PID, Problems: []string{}}
	add := func(text string) {
		if text != "" {
			h.Problems = append(h.Problems, text)
		}
	}
	add(st.Warning)
	add(st.Config.Error)
	for _, c := range st.Projects {
		add(c.Error)
	}
	for _, r := range st.Refused {
		add(r.Reason)
	}
	for _, d := range st.Discovery {
		add(d.Error)
	}
	h.Healthy = len(h.Problems) == 0
	w.Header().Set("Content-Type", "application/json")
	if !h.Healthy {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	// An error here is a client that has gone.
	_ = json.NewEncoder(w).Encode(h)
}
