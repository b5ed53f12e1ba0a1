package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
	"golang.org/x/sys/unix"
)

// ErrNoAgent says that nobody answers at the control socket.
var ErrNoAgent = errors.New("no agent answers")

// answerTimeout is when an answer must have begun: the agent waits for nobody.
const answerTimeout = 5 * time.Second

// Client talks to the agent behind a control socket.
type Client struct {
	path string
	own  bool // that of another user is not asked
	http http.Client
}

// NewClient returns a client of the agent whose control socket is at path. It
// connects when it is used and holds no connection in between.
func NewClient(path string) *Client {
	c := &Client{path: path}
	c.http.Transport = &http.Transport{
		DisableKeepAlives:     true,
		ResponseHeaderTimeout: answerTimeout,
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
	}
	return c
}

// patient returns a client for what a guest is asked for, which may take longer.
func (c *Client) patient() *Client {
	p := &Client{path: c.path, own: c.own}
	p.http.Transport = &http.Transport{
		DisableKeepAlives:     true,
		ExpectContinueTimeout: time.Hour, // whoever is asked has a time of its own
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dial(ctx) },
	}
	return p
}

// Status asks for everything the agent knows. The error is ErrNoAgent when
// there is none, and wraps fs.ErrPermission when it is another user's.
func (c *Client) Status(ctx context.Context) (status.Status, error) {
	return c.StatusOf(ctx, status.Query{})
}

// StatusOf is Status of what is wanted alone.
func (c *Client) StatusOf(ctx context.Context, q status.Query) (status.Status, error) {
	var st status.Status
	body, err := c.StatusJSON(ctx, q)
	if err != nil {
		return status.Status{}, err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		return status.Status{}, fmt.Errorf("read the answer of the agent at %s: %w", c.path, err)
	}
	if err := json.Unmarshal(text, &st); err != nil {
		return status.Status{}, err
	}
	return st, nil
}

// StatusJSON is StatusOf as the agent sends it, which may be tens of megabytes. The
// caller closes it.
func (c *Client) StatusJSON(ctx context.Context, q status.Query) (io.ReadCloser, error) {
	form := url.Values{"rows": {strconv.Itoa(q.Rows)}}
	for key, value := range map[string]string{"vm": q.VM, "state": q.State} {
		if value != "" {
			form.Set(key, value)
		}
	}
	if q.Port != 0 {
		form.Set("port", strconv.Itoa(int(q.Port)))
	}
	return c.get(ctx, statusPath, form)
}

// get asks for what is at a path of the API. The caller closes it.
func (c *Client) get(ctx context.Context, path string, form url.Values) (io.ReadCloser, error) {
	return c.send(ctx, http.MethodGet, path, form)
}

// send is get with another method.
func (c *Client) send(ctx context.Context, method, path string, form url.Values) (io.ReadCloser, error) {
	return c.sendBody(ctx, method, path, form, nil)
}

func (c *Client) sendBody(ctx context.Context, method, path string, form url.Values, body io.Reader) (io.ReadCloser, error) {
	path += "?" + form.Encode()
	// The host in the address is never looked up: there is only one.
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Expect", "100-continue") // it is read when somebody wants it
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.failed(err)
	}
	if err := refusal(res); err != nil {
		_ = res.Body.Close()
		return nil, err
	}
	return res.Body, nil
}

// failed is why there is no answer.
func (c *Client) failed(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%w at %s", ErrNoAgent, c.path)
	}
	if s, ok := errors.AsType[*StrangerError](err); ok {
		return s
	}
	if asked, ok := errors.AsType[*url.Error](err); ok {
		err = asked.Err // the address is made up
	}
	return fmt.Errorf("ask the agent at %s: %w", c.path, err)
}

// refusal is what an answer says that does not give what was asked for; nil for one that does.
func refusal(res *http.Response) error {
	if res.StatusCode == http.StatusOK {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxRefusal))
	e := &RefusedError{Status: res.StatusCode, Text: strings.TrimSpace(string(text))}
	if e.Status == http.StatusNotFound && e.Text == notServed {
		e = &RefusedError{http.StatusNotImplemented, "it is older than this program, and does not know that yet"}
	}
	return e
}

// notServed is what [http.ServeMux] says of a path that it does not have.
const notServed = "404 page not found"

// maxRefusal is how much is read of why an agent refuses, in bytes.
const maxRefusal = 4 << 10

// RefusedError is what an agent says that does not give what was asked for.
type RefusedError struct {
	Status int // of HTTP
	Text   string
}

func (e *RefusedError) Error() string { return "the agent refuses: " + e.Text }

// Is tells of [fs.ErrPermission]: what another socket of the agent's is for.
func (e *RefusedError) Is(target error) bool {
	return target == fs.ErrPermission && e.Status == http.StatusForbidden
}

// Events yields what happens to a VM, or with an empty name to all, line by line as the agent
// sends it, until ctx ends, which is no error, or yield fails. since is a cursor or a duration
// from which on the past is wanted, or empty. The error is [ErrEnded] when the agent ends.
func (c *Client) Events(ctx context.Context, vm, since string, yield func(line []byte) error) error {
	form := make(url.Values)
	for key, value := range map[string]string{"vm": vm, "since": since} {
		if value != "" {
			form.Set(key, value)
		}
	}
	body, err := c.get(ctx, eventsPath, form)
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		if err := yield(lines.Bytes()); err != nil {
			return err
		}
	}
	return ignoreEnd(ctx, fmt.Errorf("%w at %s", ErrEnded, c.path))
}

// ErrEnded says that the agent answered, and does not any more.
var ErrEnded = errors.New("the agent has ended")

// maxLine bounds a line of events, in bytes; an agent's are much shorter.
const maxLine = 64 << 10

// ignoreEnd is err, but for a context that has ended.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
