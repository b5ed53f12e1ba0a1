package control

import (
	"errors"
	"io/fs"
	"net/http"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

const requestsPath = "/v1/requests"

// requests is the answer of the API.
type requests struct {
	Requests []status.Request `json:"requests"`
}

// handleRequests adds the pages that VMs ask to open, and the user's answer to one.
func (s *Server) handleRequests(mux *http.ServeMux) {
	mux.HandleFunc("GET "+requestsPath, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, requests{s.Requests()}, nil)
	})
	mux.HandleFunc("POST "+requestsPath, func(w http.ResponseWriter, r *http.Request) {
		form := r.URL.Query()
		var err error
		switch form.Get("answer") {
		case "open":
			if err = s.Answer(r.Context(), form.Get("id"), true); err != nil && !errors.Is(err, fs.ErrNotExist) {
				err = &kindOf{err, fs.ErrExist}
			}
		case "refuse":
			err = s.Answer(r.Context(), form.Get("id"), false)
		default:
			err = errors.New("answer is neither open nor refuse")
		}
		answer(w, struct{}{}, err)
	})
}
