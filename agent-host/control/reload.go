package control

import (
	"context"
	"net/http"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

const reloadPath = "/v1/reload"

// Reloaded are the configuration files after they were read anew.
type Reloaded struct {
	Config   status.Config   `json:"config"`
	Projects []status.Config `json:"projects"`
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	if err := s.Reload(r.Context()); err != nil {
		return // the client has gone, or the agent ends
	}
	st := s.Status()
	answer(w, Reloaded{st.Config, append([]status.Config{}, st.Projects...)}, nil)
}

// Reload has the configuration files read anew, and tells what they are then.
func (c *Client) Reload(ctx context.Context) (all Reloaded, err error) {
	return all, c.value(ctx, http.MethodPost, reloadPath, nil, &all)
}
