//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// patience bounds every wait. It says nothing about speed: an emulated guest
// on a busy machine is slow.
const patience = 60 * time.Second

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	t.Cleanup(cancel)
	return ctx
}

// inGuest runs a shell command in the guest.
func inGuest(t *testing.T, ctx context.Context, format string, args ...any) string {
	t.Helper()
	out, err := guest.Run(ctx, fmt.Sprintf(format, args...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// eventually waits until check has nothing to say against, and returns how
// long that took.
func eventually(t *testing.T, what string, check func() error) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		err := check()
		took := time.Since(began)
		if err == nil {
			t.Logf("%s after %v", what, took.Round(10*time.Millisecond))
			return took
		}
		if took > patience {
			t.Fatalf("not %s within %v: %v", what, patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// stateIs checks what status says of the guest.
func stateIs(ctx context.Context, want ...string) func() error {
	return func() error {
		vm, err := host.vm(ctx)
		if err == nil && !slices.Contains(want, vm.State) {
			err = fmt.Errorf("the machine is %s: %s", vm.State, vm.Error)
		}
		return err
	}
}

// forwarded checks that status shows the guest's port as active on both of
// the host's loopback addresses.
func forwarded(ctx context.Context, port int) func() error {
	return func() error {
		vm, err := host.vm(ctx)
		if err != nil {
			return err
		}
		f, ok := find(vm, port)
		if !ok {
			return fmt.Errorf("no forward of port %d", port)
		}
		want := []string{fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("[::1]:%d", port)}
		for _, addr := range want {
			if f.State != status.Active || !slices.Contains(f.Host, addr) {
				return fmt.Errorf("the forward of port %d is %s on %v: %s", port, f.State, f.Host, f.Reason)
			}
		}
		return nil
	}
}

// gone checks that the forward is neither listed nor listening.
func gone(ctx context.Context, port int) func() error {
	return func() error {
		vm, err := host.vm(ctx)
		if err != nil {
			return err
		}
		if f, ok := find(vm, port); ok {
			return fmt.Errorf("port %d is still %s", port, f.State)
		}
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			conn.Close()
			return fmt.Errorf("port %d still takes connections", port)
		}
		return nil
	}
}

func find(vm status.VM, port int) (status.Forward, bool) {
	i := slices.IndexFunc(vm.Forwards, func(f status.Forward) bool {
		return f.Proto == "tcp" && int(f.Port) == port
	})
	if i < 0 {
		return status.Forward{}, false
	}
	return vm.Forwards[i], true
}

// freePort returns a port that is free on both loopback addresses and below
// the range that the kernel gives to outgoing connections.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 20000 + rand.IntN(10000)
		v4, err4 := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		v6, err6 := net.Listen("tcp", net.JoinHostPort("::1", strconv.Itoa(port)))
		if err4 == nil {
			v4.Close()
		}
		if err6 == nil {
			v6.Close()
		}
		if err4 == nil && err6 == nil {
			return port
		}
	}
	t.Fatal("no free port on 127.0.0.1 and ::1")
	return 0
}

// startInGuest leaves a command running in the guest, until the test ends or
// stop is called, whichever is first.
func startInGuest(t *testing.T, ctx context.Context, format string, args ...any) (stop func()) {
	t.Helper()
	pid := inGuest(t, ctx, "%s >/dev/null 2>&1 & echo $!", fmt.Sprintf(format, args...))
	stop = sync.OnceFunc(func() {
		// A Cleanup runs after the test's own context has ended.
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		// It is gone already when the guest has been reset.
		if _, err := guest.Run(ctx, "kill -9 "+pid+" || true"); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// serveInGuest starts a web server in the guest whose page is text.
func serveInGuest(t *testing.T, ctx context.Context, port int, text string) (stop func()) {
	t.Helper()
	inGuest(t, ctx, "mkdir -p /www%[1]d && echo '%[2]s' >/www%[1]d/index.html", port, text)
	return startInGuest(t, ctx, "httpd -f -p %[1]d -h /www%[1]d", port)
}

// fetch returns the page at addr, on a connection of its own.
func fetch(ctx context.Context, addr string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/", nil)
	if err != nil {
		return "", err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	return strings.TrimSpace(string(page)), err
}

// answers checks that both host addresses serve the page.
func answers(ctx context.Context, port int, want string) func() error {
	return func() error {
		for _, ip := range []string{"127.0.0.1", "::1"} {
			page, err := fetch(ctx, net.JoinHostPort(ip, strconv.Itoa(port)))
			if err != nil {
				return err
			}
			if page != want {
				return fmt.Errorf("%s serves %q, want %q", ip, page, want)
			}
		}
		return nil
	}
}
