package ask

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

const (
	// httpRetry is the time between two requests, and httpTimeout how long one may take.
	httpRetry   = 200 * time.Millisecond
	httpTimeout = 10 * time.Second
)

// Wait returns nil as soon as a port answers, within limit; 0 is for ever. With a path, that is
// an HTTP answer below 500.
func (o *Port) Wait(ctx context.Context, socket, port, path string, limit time.Duration) error {
	t, err := o.target(port)
	switch {
	case err != nil:
		return err
	case limit < 0:
		return output.Misuse(fmt.Errorf("--timeout %v: want a time that is not negative", limit))
	case path != "" && !strings.HasPrefix(path, "/"):
		return output.Misuse(fmt.Errorf("--http %q: want a path that begins with /", path))
	case path != "" && !asURL(path):
		return output.Misuse(fmt.Errorf("--http %q: want a path as it is in a URL, such as /a%%20b", path))
	case path != "" && o.UDP:
		return output.Misuse(errors.New("--http asks over TCP, and --udp is for UDP"))
	}
	end := time.Now().Add(limit)
	left := func() (time.Duration, bool) {
		if limit == 0 {
			return 0, true
		}
		d := time.Until(end)
		return d, d > 0
	}
	reason := "the time is up"
	for {
		d, more := left()
		if !more {
			break
		}
		answer, err := control.NewClient(socket).Wait(ctx, t, d)
		switch {
		case ctx.Err() != nil:
			return errors.New("interrupted")
		case errors.Is(err, control.ErrEnded):
			return Advise(socket, fmt.Errorf("%w: it has ended", control.ErrNoAgent))
		case err != nil:
			return Advise(socket, err)
		case !answer.Answers:
			reason = answer.Reason
			continue
		case path == "":
			return nil
		}
		if err := askHTTP(ctx, answer, path, d); err != nil {
			reason = err.Error()
			select {
			case <-ctx.Done():
			case <-time.After(httpRetry):
			}
			continue
		}
		return nil
	}
	of := ""
	if o.VM != "" {
		of = " of " + o.VM
	}
	return output.Advise(fmt.Errorf("port %d%s does not answer within %v: %s", t.Port, of, limit, reason),
		"see why with: "+o.explain(socket, t.Port))
}

// asURL reports whether a path can be asked for as it is.
func asURL(path string) bool {
	_, err := url.Parse("http://localhost" + path)
	return err == nil
}

// askHTTP asks for a path, through the forward, and wants an answer below 500.
func askHTTP(ctx context.Context, at status.Answer, path string, left time.Duration) error {
	if len(at.Host) == 0 {
		return errors.New("it is open on no address of the host")
	}
	network, addr := "tcp", at.Host[0]
	if filepath.IsAbs(addr) {
		network = "unix"
	}
	var d net.Dialer
	limit := min(httpTimeout, cmp.Or(left, httpTimeout))
	client := http.Client{
		Timeout:       limit,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, network, addr)
		}},
	}
	host := "localhost"
	if network == "tcp" {
		host = addr
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+path, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		if failed.Timeout() {
			return fmt.Errorf("GET %s: it gives no answer within %v", path, limit.Round(time.Millisecond))
		}
		return fmt.Errorf("GET %s: %w", path, failed.Err)
	}
	_ = res.Body.Close()
	if res.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("GET %s: it says %s", path, res.Status)
	}
	return nil
}
