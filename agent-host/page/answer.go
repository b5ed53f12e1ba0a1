package page

import (
	"io"
	"net/http"
	"strings"
)

// prepare has an answer arrive as the service sends it.
func prepare(res *http.Response) error {
	d := destinationOf(res.Request.Context())
	if res.StatusCode == http.StatusSwitchingProtocols {
		if conn, ok := res.Body.(serviceConn); ok {
			res.Body = &watched{conn, clientOf(res.Request.Context())}
		}
		return nil
	}
	d.body.answer(d.w.Header())
	if _, typed := res.Header["Content-Type"]; !typed {
		d.w.Header()["Content-Type"] = nil // or one would be guessed
	}
	// An answer of unknown length, or of events, is passed on at once as it is.
	if res.ContentLength > 0 && !strings.Contains(strings.ToLower(res.Header.Get("Content-Type")), "event-stream") {
		res.Body = &prompt{res.Body, d.w}
	}
	return nil
}

// prompt is the body of an answer that the client has as far as the service has sent it.
type prompt struct {
	io.ReadCloser
	client http.ResponseWriter
}

// Read flushes what there is before it waits for more.
func (p *prompt) Read(b []byte) (int, error) {
	if kept, ok := p.ReadCloser.(*body); !ok || kept.buffered() == 0 {
		if err := http.NewResponseController(p.client).Flush(); err != nil {
			return 0, err
		}
	}
	return p.ReadCloser.Read(b)
}
