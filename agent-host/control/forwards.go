package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

const forwardsPath = "/v1/forwards"

// handleForwards adds what changes the forwards that commands have added.
func (s *Server) handleForwards(mux *http.ServeMux) {
	mux.HandleFunc("GET "+forwardsPath, func(w http.ResponseWriter, r *http.Request) {
		all, err := s.Forwards(r.URL.Query().Get("vm"))
		answer(w, forwards{all}, err)
	})
	mux.HandleFunc("POST "+forwardsPath, func(w http.ResponseWriter, r *http.Request) {
		f, err := forwardOf(r)
		var one status.Added
		if err == nil {
			one, err = s.AddForward(f.VM, f.Ports, f.Proto, f.Hold)
		}
		answer(w, one, err)
	})
	mux.HandleFunc("DELETE "+forwardsPath, func(w http.ResponseWriter, r *http.Request) {
		f, err := forwardOf(r)
		var one status.Added
		if err == nil {
			one, err = s.RemoveForward(f.VM, f.Ports, f.Proto)
		}
		answer(w, one, err)
	})
}

// Forward is what a client wants to be forwarded.
type Forward struct {
	VM    string // empty for the only one
	Ports string // [HOST:]GUEST
	Proto string // "tcp" or "udp"
	Hold  time.Duration
}

func (f *Forward) form() url.Values {
	form := url.Values{"ports": {f.Ports}, "proto": {f.Proto}}
	if f.VM != "" {
		form.Set("vm", f.VM)
	}
	if f.Hold != 0 {
		form.Set("hold", f.Hold.String())
	}
	return form
}

func forwardOf(r *http.Request) (f Forward, err error) {
	form := r.URL.Query()
	f = Forward{VM: form.Get("vm"), Ports: form.Get("ports"), Proto: cmp.Or(form.Get("proto"), "tcp")}
	if text := form.Get("hold"); text != "" {
		if f.Hold, err = time.ParseDuration(text); err != nil || f.Hold <= 0 {
			return f, fmt.Errorf("hold=%q is no time", text)
		}
	}
	if f.Proto != "tcp" && f.Proto != "udp" {
		return f, errors.New("proto is neither tcp nor udp")
	}
	return f, nil
}

// forwards is the answer of the API.
type forwards struct {
	Forwards []status.Added `json:"forwards"`
}

// answer sends a value, or why there is none.
func answer(w http.ResponseWriter, value any, err error) {
	code := http.StatusBadRequest
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		// An error here is a client that has gone.
		_ = json.NewEncoder(w).Encode(value)
		return
	case errors.Is(err, fs.ErrNotExist):
		code = http.StatusNotFound
	case errors.Is(err, fs.ErrExist):
		code = http.StatusConflict
	}
	http.Error(w, err.Error(), code)
}

// AddForward has ports forwarded. The error is a [*RefusedError] where that cannot be.
func (c *Client) AddForward(ctx context.Context, f Forward) (one status.Added, err error) {
	return one, c.value(ctx, http.MethodPost, forwardsPath, f.form(), &one)
}

// RemoveForward takes back what AddForward has added. The error is as there.
func (c *Client) RemoveForward(ctx context.Context, f Forward) (one status.Added, err error) {
	return one, c.value(ctx, http.MethodDelete, forwardsPath, f.form(), &one)
}

// Forwards are what was added to a VM, or with an empty name to all. The error is a
// [*RefusedError] with status 404 where there is no such VM.
func (c *Client) Forwards(ctx context.Context, vm string) ([]status.Added, error) {
	var all forwards
	err := c.value(ctx, http.MethodGet, forwardsPath, url.Values{"vm": {vm}}, &all)
	return all.Forwards, err
}

// value reads an answer.
func (c *Client) value(ctx context.Context, method, path string, form url.Values, value any) error {
	body, err := c.send(ctx, method, path, form)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(value); err != nil {
		return fmt.Errorf("read the answer of the agent at %s: %w", c.path, err)
	}
	return nil
}
