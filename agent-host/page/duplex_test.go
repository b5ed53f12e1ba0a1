package page_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
)

// The client sends each part once it has the answer to the one before.
func TestAnAnswerArrivesWhileItsRequestIsSent(t *testing.T) {
	addr, _ := raw(t, func(_ int, c net.Conn, in *bufio.Reader) {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n")
		part := make([]byte, 100)
		for {
			n, err := req.Body.Read(part)
			if n > 0 {
				fmt.Fprintf(c, "%x\r\n%s\r\n", n, part[:n])
			}
			if err != nil {
				fmt.Fprintf(c, "0\r\nX-End: %v\r\n\r\n", err)
				return
			}
		}
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	for range 10 {
		c, in := s.dial(t, "POST / HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n", s.named(s.port))
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"one", "two", "six"} {
			fmt.Fprintf(c, "3\r\n%s\r\n", part)
			got := make([]byte, 3)
			if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != part {
				t.Fatalf("%q, %v, want %q", got, err, part)
			}
		}
		fmt.Fprint(c, "0\r\n\r\n")
		if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil || res.Trailer.Get("X-End") != "EOF" {
			t.Fatalf("it ends with %q, %v, %v", rest, err, res.Trailer)
		}
	}
}

// Such a client is told that it cannot ask by this connection again, and what it still sends is no request.
func TestAnAnswerArrivesBeforeTheRequestIsSent(t *testing.T) {
	for name, text := range map[string]string{
		"a body of known length": "Content-Length: 300000\r\n\r\nabc",
		"a short one":            "Content-Length: 100\r\n\r\nabc",
		"chunks":                 "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			addr, connections := raw(t, func(_ int, c net.Conn, in *bufio.Reader) {
				if _, err := http.ReadRequest(in); err == nil {
					fmt.Fprint(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
					_, _ = io.Copy(io.Discard, in)
				}
			})
			s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
			c, in := s.dial(t, "POST / HTTP/1.1\r\nHost: %s\r\n%s", s.named(s.port), text)
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(res.Body); res.StatusCode != http.StatusForbidden || string(body) != "no" || err != nil || !res.Close {
				t.Errorf("%s, %q, %v, closed: %v", res.Status, body, err, res.Close)
			}
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", s.named(s.port))
			if more, _ := io.ReadAll(in); len(more) > 0 || connections.Load() != 1 {
				t.Errorf("%q after the answer, %d connections", more, connections.Load())
			}
		})
	}
}
