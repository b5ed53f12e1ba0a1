package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// waitForForward watches the host agent's status until the web server's port
// is forwarded. A port that another program holds is an error with once, else
// it is said: the agent takes the port over when it gets free.
func waitForForward(ctx context.Context, agent *hostAgent, out *terminal, once bool) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	said := ""
	for {
		f, ok, err := agent.forward(ctx)
		switch {
		case !ok:
		case f.State == status.Active:
			out.step("the forward appeared: %s -> %s in the guest",
				strings.Join(f.Host, ", "), strings.Join(f.Guest, ", "))
			return nil
		case once:
			return fmt.Errorf("port %d is not free on the host: %s", port, f.Reason)
		case said != f.Reason:
			out.step("port %d is not free on the host: %s; waiting for it", port, f.Reason)
			said = f.Reason
		}
		select {
		case <-tick.C:
		case <-agent.ended:
			return agent.failure()
		case <-ctx.Done():
			if err == nil {
				err = context.Cause(ctx)
			}
			return fmt.Errorf("no forward of port %d: %w", port, err)
		}
	}
}

// fetch gets the page by name, as a browser would, and makes sure that it is
// the guest's.
func fetch(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	url := fmt.Sprintf("http://localhost:%d/", port)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	page, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK || !strings.Contains(string(page), name) {
		return "", fmt.Errorf("%s answered %s, which is not the guest's page:\n%s", url, response.Status, page)
	}
	return string(page), nil
}
