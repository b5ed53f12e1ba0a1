package page_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// asked is a service that answers with the header of what it is asked and, behind its body, the trailers.
func asked(t *testing.T) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		fmt.Fprintf(w, "%s %q\n", r.Proto, body)
		_ = r.Header.Write(w)
		fmt.Fprintln(w, "trailers:")
		_ = r.Trailer.Write(w)
	})}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return l.Addr().String()
}

// lines reads an answer of asked.
func lines(t *testing.T, in *bufio.Reader) []string {
	t.Helper()
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%d %q, %v", res.StatusCode, text, err)
	}
	return strings.Split(strings.ReplaceAll(string(text), "\r", ""), "\n")
}

// A proxy in front of the names, such as one that speaks TLS, tells the service of its client.
func TestWhatAProxyInFrontSaysOfItsClientReachesTheService(t *testing.T) {
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: asked(t)})
	header := []string{"Forwarded: for=192.0.2.1;proto=https", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Host: shop.example", "X-Forwarded-Port: 443", "X-Forwarded-Proto: https"}
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		_, in := s.dial(t, "%s / HTTP/1.1\r\nHost: %s\r\n%s\r\nContent-Length: 0\r\n\r\n", method, s.named(s.port), strings.Join(header, "\r\n"))
		got := lines(t, in)
		for _, want := range header {
			if !slices.Contains(got, want) {
				t.Errorf("%s: the service does not see %q, but %q", method, want, got)
			}
		}
		_, in = s.dial(t, "%s / HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n", method, s.named(s.port))
		if got := strings.Join(lines(t, in), "\n"); strings.Contains(got, "Forwarded") {
			t.Errorf("%s: the service sees what nobody has said: %s", method, got)
		}
	}
}

func TestTheTrailersOfARequestReachTheService(t *testing.T) {
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: asked(t)})
	t.Run("HTTP/1.1", func(t *testing.T) {
		_, in := s.dial(t, "POST / HTTP/1.1\r\nHost: %s\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", s.named(s.port))
		if got := lines(t, in); got[0] != `HTTP/1.1 "hello"` || !slices.Contains(got, "X-Sum: 1") {
			t.Errorf("%q", got)
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		s.await(t, isActive)
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetUnencryptedHTTP2(true)
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", s.addr)
		}
		defer tr.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.host("3000.dev.localhost")+"/", io.MultiReader(strings.NewReader("hello")))
		if err != nil {
			t.Fatal(err)
		}
		req.Trailer = http.Header{"X-Sum": {"1"}}
		res, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil || !strings.HasPrefix(string(text), `HTTP/2.0 "hello"`) || !strings.Contains(string(text), "X-Sum: 1\r\n") {
			t.Errorf("%s, %v", text, err)
		}
	})
}

func TestABodyThatCannotBeReadIsTheClientsFault(t *testing.T) {
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: asked(t)})
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		_, in := s.dial(t, "%s / HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXXXX\r\n", method, s.named(s.port))
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != http.StatusBadRequest || !strings.Contains(string(text), "malformed chunked encoding") || strings.Contains(string(text), "does not answer") {
			t.Errorf("%s: %d %s", method, res.StatusCode, text)
		}
	}
}
