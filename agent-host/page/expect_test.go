package page_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// post is a request whose client waits for 100 before it sends the body.
const post = "POST / HTTP/1.1\r\nHost: %s\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"

// heard reads status lines, and headers, up to the one that ends the request.
func heard(t *testing.T, in *bufio.Reader, then func(code int)) (all []int, text string) {
	t.Helper()
	for {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("%v after %v", err, all)
		}
		all = append(all, res.StatusCode)
		then(res.StatusCode)
		if res.StatusCode >= 200 {
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Error(err)
			}
			return all, string(body)
		}
	}
}

// The service takes longer to make up its mind than a proxy that waits for a second.
func TestAClientIsToldToContinueByTheService(t *testing.T) {
	addr, _ := raw(t, func(_ int, c net.Conn, in *bufio.Reader) {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		time.Sleep(1500 * time.Millisecond)
		fmt.Fprint(c, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
		body, _ := io.ReadAll(req.Body)
		answer(c, string(body))
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	c, in := s.dial(t, post, s.named(s.port))
	all, text := heard(t, in, func(code int) {
		if code == http.StatusContinue {
			fmt.Fprint(c, "hello")
		}
	})
	if fmt.Sprint(all) != "[103 100 200]" || text != "hello" {
		t.Errorf("%v, %q", all, text)
	}
}

func TestAServiceThatWantsNoBodyHasTheClientSendNone(t *testing.T) {
	addr, _ := raw(t, func(_ int, c net.Conn, in *bufio.Reader) {
		if _, err := http.ReadRequest(in); err == nil {
			fmt.Fprint(c, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
			_, _ = in.ReadByte()
		}
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	_, in := s.dial(t, post, s.named(s.port))
	if all, text := heard(t, in, func(int) {}); fmt.Sprint(all) != "[401]" || text != "no" {
		t.Errorf("%v, %q", all, text)
	}
}

// Some services never say 100, and clients do not wait for it without end.
func TestABodyThatIsSentUnaskedReachesTheService(t *testing.T) {
	asked := make(chan struct{})
	addr, _ := raw(t, func(_ int, c net.Conn, in *bufio.Reader) {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		close(asked)
		body, _ := io.ReadAll(req.Body)
		answer(c, string(body))
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	c, in := s.dial(t, post, s.named(s.port))
	<-asked
	fmt.Fprint(c, "hello")
	if all, text := heard(t, in, func(int) {}); all[len(all)-1] != http.StatusOK || text != "hello" {
		t.Errorf("%v, %q", all, text)
	}
}

func TestABodyThatComesTogetherWithItsHeadIsNotWaitedFor(t *testing.T) {
	addr, _ := raw(t, func(_ int, c net.Conn, in *bufio.Reader) {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, _ := io.ReadAll(req.Body)
		answer(c, string(body))
	})
	s := serve(t, nil, service{vm: "dev", port: 3000, addr: addr})
	body := strings.Repeat("0123456789", 600)
	_, in := s.dial(t, "POST / HTTP/1.1\r\nHost: %s\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n%s", s.named(s.port), len(body), body)
	if all, text := heard(t, in, func(int) {}); all[len(all)-1] != http.StatusOK || text != body {
		t.Errorf("%v, %q", all, text)
	}
}
