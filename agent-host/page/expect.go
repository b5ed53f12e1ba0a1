package page

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"time"
)

// unaskedAfter is when a service that does not say 100 is sent the body all the same: there are some that never do.
const unaskedAfter = 30 * time.Second

// expected is the body of a request whose client waits for the service's 100 before it sends it. To read it has the
// server say 100 itself, so that waits until the service has said so, or the client sends it unasked.
type expected struct {
	io.ReadCloser
	client *client
	wait   sync.Once
	asked  chan struct{} // closed once the service wants it
	over   chan struct{} // closed once the request is
}

var errNotWanted = errors.New("the service did not ask for the body")

// expectsContinue reports whether a client waits for 100. Those of HTTP/2 share a connection, and are told by its server.
func expectsContinue(r *http.Request) bool {
	return r.ProtoMajor == 1 && r.Body != http.NoBody && strings.EqualFold(r.Header.Get("Expect"), "100-continue")
}

// expect returns a request that is r, but for its body. The caller calls release once it is answered.
func expect(r *http.Request) (_ *http.Request, release func()) {
	e := &expected{ReadCloser: r.Body, client: clientOf(r.Context()), asked: make(chan struct{}), over: make(chan struct{})}
	asked := sync.OnceFunc(func() { close(e.asked) })
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		// The client has been told by the time that this is called.
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
			if code == http.StatusContinue {
				asked()
			}
			return nil
		},
	})
	r = r.WithContext(ctx)
	r.Body = e
	return r, func() {
		close(e.over)
		e.wait.Do(func() {}) // the client is the server's again
	}
}

func (e *expected) Read(b []byte) (int, error) {
	e.wait.Do(e.await)
	select {
	case <-e.over:
		return 0, errNotWanted
	default:
		return e.ReadCloser.Read(b)
	}
}

// await ends before anything else reads from the client.
func (e *expected) await() {
	sends := make(chan struct{})
	go func() {
		defer close(sends)
		e.client.wait()
	}()
	unasked := time.NewTimer(unaskedAfter)
	defer unasked.Stop()
	select {
	case <-e.asked:
	case <-e.over:
	case <-sends:
	case <-unasked.C:
	}
	_ = e.client.SetReadDeadline(time.Unix(1, 0))
	<-sends
	_ = e.client.SetReadDeadline(time.Time{})
}
