package page

import (
	"bufio"
	"bytes"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// without is a header without fields that are not passed on.
func without(h http.Header) http.Header {
	h = maps.Clone(h)
	h.Del("Connection")
	h.Del("Keep-Alive")
	return h
}

// FuzzAPlainRequestIsWhatNetHTTPReads has whatever is passed on read by net/http, before and behind.
func FuzzAPlainRequestIsWhatNetHTTPReads(f *testing.F) {
	for _, fields := range slices.Concat([]string{
		"", "Connection: keep-alive\r\n", "Keep-Alive: 300\r\nConnection:Keep-Alive \r\n", "A: b\r\na: \xff\tc\r\nCookie: a=b; c=d\r\n",
	}, notPlain) {
		f.Add([]byte("GET /a?b HTTP/1.1\r\nHost: 3000.dev.localhost:7070\r\n" + fields + "\r\n"))
	}
	for _, line := range notPlainLines {
		f.Add([]byte(line + "\r\nHost: a\r\n\r\n"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		head := headOf(b)
		sent, host, ok := plainRequest(nil, head)
		if !ok {
			return
		}
		in := bufio.NewReader(bytes.NewReader(b))
		req, err := http.ReadRequest(in)
		if err != nil {
			t.Fatalf("%q: %v", head, err)
		}
		if req.Method != http.MethodGet || req.Body != http.NoBody || req.ContentLength != 0 || req.Close || req.Host != string(host) || req.Proto != "HTTP/1.1" {
			t.Errorf("%q is %+v", head, req)
		}
		if rest, _ := io.ReadAll(in); !bytes.Equal(rest, b[len(head):]) {
			t.Errorf("%q leaves %q", b, rest)
		}
		in.Reset(bytes.NewReader(sent))
		out, err := http.ReadRequest(in)
		if err != nil {
			t.Fatalf("%q: %v", sent, err)
		}
		if out.RequestURI != req.RequestURI || out.Host != req.Host || !reflect.DeepEqual(without(out.Header), without(req.Header)) || len(out.Header["Connection"]) > 0 {
			t.Errorf("%q is passed on as %q", head, sent)
		}
	})
}

// FuzzAPlainAnswerIsWhatNetHTTPReads does the same for answers and their bodies.
func FuzzAPlainAnswerIsWhatNetHTTPReads(f *testing.F) {
	for _, text := range slices.Concat([]string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello", "HTTP/1.1 304 \r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 204 No\r\n\r\n",
		"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: Chunked\r\nKeep-Alive: timeout=5\r\n\r\n5\r\nhello\r\n00a\r\n0123456789\r\n0\r\n\r\n",
	}, notPlainAnswers) {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		head := headOf(b)
		if head == nil {
			return
		}
		sent, length, ok := plainAnswer(nil, head)
		if !ok {
			return
		}
		body := b[len(head):]
		if length == inChunks {
			if length, ok = chunked(body); !ok {
				return
			}
		}
		if length > len(body) {
			return
		}
		req := &http.Request{Method: http.MethodGet}
		read := func(b []byte) (*http.Response, []byte, []byte) {
			in := bufio.NewReader(bytes.NewReader(b))
			res, err := http.ReadResponse(in, req)
			if err != nil {
				t.Fatalf("%q: %v", b, err)
			}
			got, err := io.ReadAll(res.Body)
			if err != nil || res.Close {
				t.Fatalf("%q: %v, %v", b, res.Close, err)
			}
			rest, _ := io.ReadAll(in)
			return res, got, rest
		}
		res, got, rest := read(b)
		if !bytes.Equal(rest, body[length:]) || res.StatusCode < 200 || len(res.Trailer) > 0 {
			t.Errorf("%q leaves %q", b, rest)
		}
		out, passed, rest := read(slices.Concat(sent, body[:length]))
		if out.StatusCode != res.StatusCode || !bytes.Equal(passed, got) || len(rest) > 0 || !reflect.DeepEqual(without(out.Header), without(res.Header)) || len(out.Header["Connection"]) > 0 {
			t.Errorf("%q is passed on as %q with %q", b, sent, passed)
		}
	})
}

// notPlainLines are of requests, notPlain fields of requests, and notPlainAnswers answers that are left to net/http.
var (
	notPlainLines = []string{
		"get / HTTP/1.1", "POST / HTTP/1.1", "HEAD / HTTP/1.1", "GET / HTTP/1.0", "GET / HTTP/1.1 ", "GET  / HTTP/1.1", "GET /a b HTTP/1.1", "GET / HTTP/1.11", "GET /",
		"GET http://evil.example/ HTTP/1.1", "GET * HTTP/1.1", "GET a HTTP/1.1", "GET  HTTP/1.1", "GET /% HTTP/1.1", "GET /%a HTTP/1.1", "GET /%zz HTTP/1.1", "GET /\x00 HTTP/1.1",
		"GET /\xc3\xa4 HTTP/1.1", "GET /\t HTTP/1.1", "GET /\r HTTP/1.1", "GET /\n HTTP/1.1", "GET / HTTP/1.1\nA: b", "\r\nGET / HTTP/1.1", " GET / HTTP/1.1", "PRI * HTTP/2.0",
	}
	notPlain = []string{
		"Content-Length: 0\r\n", "Content-Length: 5\r\n", "content-LENGTH: 0\r\n", "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: identity\r\n", "Content-Length : 5\r\n",
		"Transfer-Encoding : chunked\r\n", "Transfer-Encoding\t: chunked\r\n", "A: b\r\n Transfer-Encoding: chunked\r\n", "A: b\r\n\tc\r\n", " A: b\r\n", "A: b\nTransfer-Encoding: chunked\r\n",
		"A: b\rTransfer-Encoding: chunked\r\n", "A\r\n", ": b\r\n", "A b: c\r\n", "A: \x00\r\n", "A: \x7f\r\n", "\xc3\xa4: b\r\n", "Host: b\r\n", "host: a\r\n", "Connection: close\r\n",
		"Connection: Upgrade\r\nUpgrade: websocket\r\n", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", "Connection: keep-alive, X-A\r\nX-A: b\r\n", "Connection: \r\n", "Expect: 100-continue\r\n",
		"TE: trailers\r\n", "Trailer: A\r\n", "Proxy-Connection: keep-alive\r\n", "Proxy-Authorization: Basic YQ==\r\n", "HTTP2-Settings: AAMAAABk\r\n",
	}
	notPlainAnswers = []string{
		"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 101 OK\r\nUpgrade: a\r\nConnection: Upgrade\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 \x00\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n c\r\n\r\nhello", "HTTP/1.1 200 OK\r\nContent-Length: 5\nA: b\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: A\r\nA: b\r\n\r\nhello", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nUpgrade: h2c\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n0\r\nA: b\r\n\r\n", "HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
	}
)

func TestWhatIsNotPlainIsLeftToNetHTTP(t *testing.T) {
	for _, line := range notPlainLines {
		if sent, _, ok := plainRequest(nil, headOf([]byte(line+"\r\nHost: a\r\n\r\n"))); ok {
			t.Errorf("%q is passed on as %q", line, sent)
		}
	}
	for _, fields := range notPlain {
		for _, text := range []string{"GET / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n", "GET / HTTP/1.1\r\n" + fields + "Host: a\r\n\r\n"} {
			if sent, _, ok := plainRequest(nil, headOf([]byte(text))); ok {
				t.Errorf("%q is passed on as %q", text, sent)
			}
		}
	}
	for _, text := range []string{"GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n", ""} {
		if sent, _, ok := plainRequest(nil, headOf([]byte(text))); ok {
			t.Errorf("%q is passed on as %q", text, sent)
		}
	}
	for _, text := range notPlainAnswers {
		if sent, _, ok := plainAnswer(nil, headOf([]byte(text))); ok {
			t.Errorf("%q is passed on as %q", text, sent)
		}
	}
}

func TestABodyInChunksEndsWithItsLastOne(t *testing.T) {
	for text, want := range map[string]int{
		"0\r\n\r\n": 5, "0\r\n\r\nHTTP/1.1": 5, "5\r\nhello\r\n0\r\n\r\n": 15, "1\r\na\r\nA\r\n0123456789\r\n000\r\n\r\n": 28, "2\r\n\r\n\r\n0\r\n\r\n": 12,
	} {
		if n, ok := chunked([]byte(text)); n != want || !ok {
			t.Errorf("%q: %d, %v, want %d", text, n, ok, want)
		}
	}
	for _, text := range []string{
		"", "0", "0\r\n", "0\r\n\r", "5\r\nhel", "5\r\nhello", "5\r\nhello\r\n", "5\r\nhello0\r\n\r\n", "5;a=b\r\nhello\r\n0\r\n\r\n", "0\r\nA: b\r\n\r\n", "0x5\r\nhello\r\n0\r\n\r\n", "+5\r\nhello\r\n0\r\n\r\n",
		"5 \r\nhello\r\n0\r\n\r\n", " 5\r\nhello\r\n0\r\n\r\n", "5\nhello\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "\r\n0\r\n\r\n", "g\r\n", "ffffffffffffffff\r\n", "ffff\r\n", "10000\r\n" + strings.Repeat("a", 65536) + "\r\n0\r\n\r\n", "-1\r\n\r\n",
	} {
		if n, ok := chunked([]byte(text)); ok {
			t.Errorf("%.40q: %d", text, n)
		}
	}
}
