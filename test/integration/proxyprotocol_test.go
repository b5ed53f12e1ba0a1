package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/stream"
)

// The server has its clients' addresses from a listener that wants the header, and says
// them before it reads anything.
func TestAServerSeesTheClientOfTheHostByWhateverPath(t *testing.T) {
	for _, row := range []struct {
		path string
		vm   func(g *guestVM) string
	}{
		{"unix", func(g *guestVM) string { return g.vm() }},
		{stream.PathMux, func(g *guestVM) string {
			return fmt.Sprintf("dev=exec:nsenter --net=/proc/%d/fd/%d %s --stdio", os.Getpid(), g.file.Fd(), filepath.Join(bin, "rum-guest-agent"))
		}},
		{"bridge", func(g *guestVM) string {
			return "dev=unix:" + filepath.Join(t.TempDir(), "nobody") + ",bridge=" + g.joined(t)
		}},
	} {
		t.Run(row.path, func(t *testing.T) {
			g := newGuest(t, "dev")
			l := proxyproto.Listener{Listener: g.listen(t, "0.0.0.0:7830"), ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
				return proxyproto.REQUIRE, nil
			}}
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						fmt.Fprintf(c, "%v to %v\n", c.RemoteAddr(), c.LocalAddr())
						_, _ = io.Copy(c, c)
					}()
				}
			}()
			file := filepath.Join(t.TempDir(), "rum.toml")
			rules := "[[forward]]\nguest = 7830\nhost = 7831\nstatic = true\nproxy_protocol = \"v2\"\n"
			if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
				t.Fatal(err)
			}
			h := &hostAgent{socket: filepath.Join(t.TempDir(), "control.sock")}
			h.program = start(t, "rum-host-agent", "run", "--config", file, "--socket", h.socket, "--vm", row.vm(g))
			eventually(t, "the control socket", func() bool {
				_, err := control.NewClient(h.socket).Status(t.Context())
				return err == nil
			})
			h.awaitForward(t, "dev", 7830, "on its path", func(f status.Forward) bool { return active(f) && f.Path == row.path })
			c, err := net.DialTimeout("tcp", "127.0.0.1:7831", 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(15 * time.Second))
			want := fmt.Sprintf("%v to %v\n", c.LocalAddr(), c.RemoteAddr())
			got := make([]byte, len(want))
			if n, err := io.ReadFull(c, got); string(got[:n]) != want {
				t.Fatalf("the server sees %q, %v; want %q", got[:n], err, want)
			}
			if _, err := io.WriteString(c, "hello"); err != nil {
				t.Fatal(err)
			}
			if n, err := io.ReadFull(c, got[:5]); string(got[:n]) != "hello" {
				t.Errorf("%q, %v", got[:n], err)
			}
			if f, _ := h.forward(t, "dev", 7830); f.Path != row.path {
				t.Errorf("the path was %q", f.Path)
			}
		})
	}
}

// TestAServerSeesEachClientThatComesByName has two clients that ask one after the other, each twice.
func TestAServerSeesEachClientThatComesByName(t *testing.T) {
	g := newGuest(t, "dev")
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s to %v", r.RemoteAddr, r.Context().Value(http.LocalAddrContextKey))
	})}
	l := &proxyproto.Listener{Listener: g.listen(t, "0.0.0.0:7830"), ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
		return proxyproto.REQUIRE, nil
	}}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	file := filepath.Join(t.TempDir(), "rum.toml")
	if err := os.WriteFile(file, []byte("[[ports]]\nguest = 7830\nproxy_protocol = \"v2\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := &hostAgent{socket: filepath.Join(t.TempDir(), "control.sock")}
	h.program = start(t, "rum-host-agent", "run", "--config", file, "--socket", h.socket, "--http", "localhost:7071", "--vm", g.vm())
	eventually(t, "the control socket", func() bool {
		_, err := control.NewClient(h.socket).Status(t.Context())
		return err == nil
	})
	h.awaitForward(t, "dev", 7830, "active", active)
	for _, page := range []string{"127.0.0.1:7071", "127.0.0.1:7071", "[::1]:7071"} {
		c, err := net.DialTimeout("tcp", page, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(15 * time.Second))
		in := bufio.NewReader(c)
		for range 2 {
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: 7830.dev.localhost:7071\r\n\r\n")
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if want := fmt.Sprintf("%v to %v", c.LocalAddr(), c.RemoteAddr()); err != nil || string(text) != want {
				t.Errorf("the server sees %q, %v; want %q", text, err, want)
			}
		}
	}
}
