package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

const explainPath = "/v1/explain"

// Target is a port that a client asks about.
type Target struct {
	VM    string // empty for all
	Proto string // "tcp" or "udp"
	Port  uint16
}

func (t *Target) form() url.Values {
	form := url.Values{"proto": {t.Proto}, "port": {strconv.Itoa(int(t.Port))}}
	if t.VM != "" {
		form.Set("vm", t.VM)
	}
	return form
}

func targetOf(r *http.Request) (t Target, err error) {
	form := r.URL.Query()
	port, err := strconv.ParseUint(form.Get("port"), 10, 16)
	if err != nil || port == 0 {
		return t, fmt.Errorf("port=%q is not a port", form.Get("port"))
	}
	t = Target{form.Get("vm"), cmp.Or(form.Get("proto"), "tcp"), uint16(port)}
	if t.Proto != "tcp" && t.Proto != "udp" {
		return t, errors.New("proto is neither tcp nor udp")
	}
	return t, nil
}

// explanations is the answer of the API.
type explanations struct {
	Explanations []status.Explanation `json:"explanations"`
}

func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	t, err := targetOf(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	all := s.Explain(t.VM, t.Proto, t.Port)
	if len(all) == 0 {
		http.Error(w, "there is no such VM", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// An error here is a client that has gone.
	_ = json.NewEncoder(w).Encode(explanations{all})
}

// Explain asks why a port answers or does not. The error is a [*RefusedError] with status 404
// where there is no such VM.
func (c *Client) Explain(ctx context.Context, t Target) ([]status.Explanation, error) {
	body, err := c.get(ctx, explainPath, t.form())
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var all explanations
	if err := json.NewDecoder(body).Decode(&all); err != nil {
		return nil, fmt.Errorf("read the answer of the agent at %s: %w", c.path, err)
	}
	return all.Explanations, nil
}
