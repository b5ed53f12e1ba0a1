package forward_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"

	proxyproto "github.com/pires/go-proxyproto"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// proxied is the rule behind all others with a header for services, and on a socket in
// the place of ports if there is one.
func proxied(socket string) policy.Rules {
	return func(vm string, l portlist.Listener) policy.Decision {
		d := policy.SamePort(vm, l)
		d.ProxyProtocol = true
		if d.HostSocket = socket; socket != "" {
			d.Host = nil
		}
		return d
	}
}

// told tells each client what a service knows of it, before it has heard anything else,
// and then echoes.
func told(t *testing.T, address string) string {
	t.Helper()
	return service(t, address, func(c net.Conn) {
		r := bufio.NewReader(c)
		h, err := proxyproto.Read(r)
		if err != nil {
			fmt.Fprintf(c, "no header: %v\n", err)
			return
		}
		fmt.Fprintf(c, "%v %v %v\n", h.Command.IsProxy(), h.SourceAddr, h.DestinationAddr)
		_, _ = io.Copy(c, r)
	})
}

// A client that says nothing is told of all the same.
func TestAServiceIsToldItsClientBeforeTheClientSaysAnything(t *testing.T) {
	for name, way := range map[string]func(*forward.VM, string){
		"link":   func(vm *forward.VM, server string) { vm.SetLink(linkTo(server)) },
		"bridge": func(vm *forward.VM, _ string) { vm.SetBridge(bridge, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			vm := newTable(t, forward.Config{Rules: proxied("")}).Add("dev")
			port := ownnet.FreePort(t)
			way(vm, told(t, addr("127.0.0.2", port)))
			vm.Announce(listeners(port, "0.0.0.0", "::"))
			for _, host := range []string{"127.0.0.1", "::1"} {
				c := dial(t, addr(host, port))
				r := bufio.NewReader(c)
				got, err := r.ReadString('\n')
				if want := fmt.Sprintf("true %v %v\n", c.LocalAddr(), c.RemoteAddr()); err != nil || got != want {
					t.Fatalf("the service is told %q, %v; want %q", got, err, want)
				}
				if _, err := io.WriteString(c, "hello\n"); err != nil {
					t.Fatal(err)
				}
				if got, err := r.ReadString('\n'); err != nil || got != "hello\n" {
					t.Errorf("%q, %v", got, err)
				}
				c.Close()
			}
			eventually(t, vm, "the client's bytes alone are counted", func(all []status.Forward) bool {
				return all[0].ConnectionsActive == 0 && all[0].BytesOut == 2*uint64(len("hello\n"))
			})
		})
	}
}

func TestAClientOnASocketIsNobodyElse(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	vm := newTable(t, forward.Config{Rules: proxied(socket)}).Add("dev")
	vm.SetLink(linkTo(told(t, "127.0.0.2:0")))
	vm.Announce(listeners(7, "0.0.0.0"))
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := bufio.NewReader(c).ReadString('\n'); err != nil || got != "false <nil> <nil>\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// A rule that comes to want the header, or no more, has it from the next client on; the
// host listener stays.
func TestAHeaderComesAndGoesWithItsRule(t *testing.T) {
	table := newTable(t, forward.Config{})
	vm := table.Add("dev")
	got := make(chan string, 1)
	port := ownnet.FreePort(t)
	vm.SetLink(&serve.Link{
		Silent: func() bool { return false },
		Open: func(_ context.Context, _ wire.Target, first []byte) (relay.Conn, string, error) {
			got <- string(first)
			return nil, "", io.EOF
		},
	})
	vm.Announce(listeners(port, "0.0.0.0"))
	for _, row := range []struct {
		rules policy.Rules
		bytes int
	}{{nil, 0}, {proxied(""), 16 + 12}, {nil, 0}} {
		table.SetRules(row.rules, nil, nil, nil)
		dialForReset(t, addr("127.0.0.1", port))
		if first := <-got; len(first) != row.bytes {
			t.Errorf("a connection begins with %q, want %d bytes", first, row.bytes)
		}
	}
}
