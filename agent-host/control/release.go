package control

import (
	"context"
	"net/http"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

const releasePath = "/v1/release"

// released is the answer of the API.
type released struct {
	Released []status.GivenBack `json:"released"`
}

func (s *Server) release(w http.ResponseWriter, r *http.Request) {
	t, err := targetOf(r)
	var all []status.GivenBack
	if err == nil {
		all, err = s.Release(t.VM, t.Proto, t.Port)
	}
	answer(w, released{all}, err)
}

// Release gives a port of the host back. The error is a [*RefusedError] with status 404 where
// there is no such VM, or nothing to give back.
func (c *Client) Release(ctx context.Context, t Target) ([]status.GivenBack, error) {
	var all released
	err := c.value(ctx, http.MethodPost, releasePath, t.form(), &all)
	return all.Released, err
}
