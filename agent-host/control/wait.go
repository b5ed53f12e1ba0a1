package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

const waitPath = "/v1/wait"

// wait answers when a port does, or the time is up that the client gives it. The header comes
// at once.
func (s *Server) wait(w http.ResponseWriter, r *http.Request) {
	t, err := targetOf(r)
	var limit time.Duration
	if text := r.URL.Query().Get("timeout"); text != "" && err == nil {
		if limit, err = time.ParseDuration(text); err == nil && limit <= 0 {
			err = fmt.Errorf("timeout=%q is no time", text)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	leave, ok := s.stay(w)
	if !ok {
		return
	}
	defer leave()
	ctx := r.Context()
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	w.Header().Set("Content-Type", "application/json")
	control := http.NewResponseController(w)
	if control.Flush() != nil {
		return
	}
	answer, err := s.Wait(ctx, t.VM, t.Proto, t.Port)
	if err != nil {
		answer.Reason = err.Error()
	}
	// Errors here are of a client that has gone.
	_ = control.SetWriteDeadline(time.Now().Add(answerWithin))
	_ = json.NewEncoder(w).Encode(answer)
}

// Wait waits until a port answers, for so long at most; 0 is for ever. The error is [ErrEnded]
// when the agent ends first.
func (c *Client) Wait(ctx context.Context, t Target, limit time.Duration) (status.Answer, error) {
	form := t.form()
	if limit > 0 {
		form.Set("timeout", limit.String())
	}
	var answer status.Answer
	body, err := c.get(ctx, waitPath, form)
	if err != nil {
		return answer, err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(&answer); err != nil {
		return answer, fmt.Errorf("%w at %s", ErrEnded, c.path)
	}
	return answer, nil
}
