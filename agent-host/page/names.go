package page

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"
)

// names passes requests on to ports of VMs.
type names struct {
	proxy *httputil.ReverseProxy
	plain plain
	// http1 and http2 have connections to services; which is used is as the client has it: HTTP/2 where it
	// speaks that, without TLS, from the beginning. http1 has one for each request: what a service leaves unread of
	// a request's body it takes for the next request, which would be another client's, and a request that may have
	// been served cannot be sent again where a connection turns out to have ended.
	http1, http2 *http.Transport
}

const (
	// idleFor is how long a connection to a service waits for another request.
	idleFor = 10 * time.Second
	// maxIdle are kept of a service, and maxIdleOfAll of all.
	maxIdle      = 64
	maxIdleOfAll = 256
	// maxHeader is the most that the header of an answer may have, in bytes.
	maxHeader = 1 << 20
)

// destination is where a request goes.
type destination struct {
	name    string // as the client has it
	w       http.ResponseWriter
	key     string
	connect func(context.Context) (net.Conn, error)
	half    half
	body    *duplex // of a request by HTTP/1; nil where there is none
}

type destinationKey struct{}

func destinationOf(ctx context.Context) *destination {
	d, _ := ctx.Value(destinationKey{}).(*destination)
	return d
}

func newNames(log *slog.Logger) *names {
	transport := func() *http.Transport {
		return &http.Transport{
			// The address is made of the key of the service that the request goes to.
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return destinationOf(ctx).connect(ctx) },
			DisableCompression:     true, // what the client can take it says itself
			IdleConnTimeout:        idleFor,
			MaxIdleConnsPerHost:    maxIdle,
			MaxIdleConns:           maxIdleOfAll,
			MaxResponseHeaderBytes: maxHeader,
			Protocols:              new(http.Protocols),
		}
	}
	n := &names{http1: transport(), http2: transport()}
	n.http1.Protocols.SetHTTP1(true)
	n.http1.MaxIdleConnsPerHost = -1
	n.http2.Protocols.SetUnencryptedHTTP2(true)
	n.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme = "http"
			if !isPlain(r.Out) { // by which a transport tells connections apart
				r.Out.URL.Host = hex.EncodeToString([]byte(destinationOf(r.In.Context()).key))
			}
			r.Out.URL.RawQuery = r.In.URL.RawQuery // which is the service's to understand; the Host stays
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if of, ok := r.In.Header[name]; ok { // where the client is a proxy itself, to which a service may listen
					r.Out.Header[name] = of
				}
			}
			r.Out.Trailer = r.In.Trailer // which is filled when the body has ended
		},
		Transport:      n,
		BufferPool:     &buffers{},
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ModifyResponse: prepare,
		ErrorHandler:   unanswered,
	}
	return n
}

// RoundTrip makes [names] an [http.RoundTripper].
func (n *names) RoundTrip(r *http.Request) (*http.Response, error) {
	switch {
	case r.ProtoMajor == 2:
		return n.http2.RoundTrip(r)
	case isPlain(r):
		return n.plain.RoundTrip(r)
	}
	return n.http1.RoundTrip(r)
}

func (n *names) close() {
	n.http1.CloseIdleConnections()
	n.http2.CloseIdleConnections()
}

// serve passes a request on.
func (n *names) serve(w http.ResponseWriter, r *http.Request, d *destination) {
	// An answer that is not all there is given up by a panic.
	whole := false
	defer func() {
		if !whole && r.ProtoMajor == 1 {
			clientOf(r.Context()).cut()
		}
	}()
	d.w = w
	ctx := context.WithValue(r.Context(), destinationKey{}, d)
	if r.ProtoMajor == 1 {
		clientOf(ctx).whenEnded(d.half.end)
		defer clientOf(ctx).whenEnded(nil)
	}
	if r.Header.Get("Upgrade") != "" {
		u := &upgrading{ResponseWriter: w}
		w, ctx = u, u.trace(ctx)
	}
	r = r.WithContext(ctx)
	if r.Body != http.NoBody {
		if r.ProtoMajor == 1 {
			d.body = &duplex{ReadCloser: r.Body, client: clientOf(ctx)}
			defer d.body.end()
			r.Body = d.body
		}
		announced := r.Trailer
		r.Trailer = announced.Clone() // the server may write to its own at any time
		r.Body = sent{r.Body, announced, r.Trailer}
	}
	if expectsContinue(r) {
		expecting, release := expect(r)
		defer release()
		r = expecting
	}
	n.proxy.ServeHTTP(w, r)
	whole = true
}

// sent is the body of a request as the client sends it, and the trailers behind it, which whoever reads the body then
// finds in its request.
type sent struct {
	io.ReadCloser
	trailer, ofRequest http.Header
}

// malformedError says that a client's body is not as HTTP has it.
type malformedError struct{ error }

func (s sent) Read(b []byte) (int, error) {
	n, err := s.ReadCloser.Read(b)
	if err == io.EOF {
		for name := range s.ofRequest {
			s.ofRequest[name] = s.trailer[name]
		}
	} else if err != nil {
		err = malformedError{err}
	}
	return n, err
}

// unanswered says that a service gave no answer, and to a client whose own doing that is, so.
func unanswered(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil || destinationOf(r.Context()).half.wasPassed() {
		panic(http.ErrAbortHandler) // the client has gone, or the service takes it to have gone
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	destinationOf(r.Context()).body.answer(w.Header())
	if malformed, ok := errors.AsType[malformedError](err); ok {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, "the body of the request cannot be read: %v\n", malformed)
		return
	}
	w.WriteHeader(http.StatusBadGateway)
	if errors.Is(err, errTooLarge) {
		fmt.Fprintf(w, "the answer of %s cannot be passed on: %v\n", destinationOf(r.Context()).name, err)
		return
	}
	fmt.Fprintf(w, "%s does not answer: %v\nsee why with: rum-host-agent explain PORT\n", destinationOf(r.Context()).name, err)
}

// buffers are those that bodies are copied by, which bulk needs to be larger than the usual 32 KiB.
type buffers struct{ pool sync.Pool }

const bufferSize = 64 << 10

func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return buf[:]
	}
	return make([]byte, bufferSize)
}

func (b *buffers) Put(buf []byte) { b.pool.Put((*[bufferSize]byte)(buf)) }
