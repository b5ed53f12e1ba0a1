package control

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
)

const linkPath = "/v1/page"

// page is the answer of the API.
type page struct {
	URL string `json:"url"`
}

func (s *Server) link(w http.ResponseWriter, _ *http.Request) {
	if s.Link == nil {
		answer(w, nil, &kindOf{errors.New("the agent serves no page: it was run with --http none"), fs.ErrNotExist})
		return
	}
	url, err := s.Link()
	if err != nil {
		err = &kindOf{err, fs.ErrExist}
	}
	answer(w, page{url}, err)
}

// kindOf is an error that is of a kind too, which its text does not say.
type kindOf struct {
	error
	kind error
}

func (e *kindOf) Is(target error) bool { return target == e.kind }

// Link returns a URL of the agent's page, which opens a session, once and within a minute. The error is a
// [*RefusedError] with status 404 where there is no page, and 409 where it is not served.
func (c *Client) Link(ctx context.Context) (string, error) {
	var p page
	if err := c.value(ctx, http.MethodPost, linkPath, nil, &p); err != nil {
		return "", err
	}
	if p.URL == "" {
		return "", errors.New("the agent named no page")
	}
	return p.URL, nil
}
