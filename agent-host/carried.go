package hostagent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
)

// Carried is the service of a VM that a client means who knows its port, or the label of its rule: one
// that rules put on the host, whether or not it has its addresses there. Its key is its own among all
// services of all VMs, or that of the client where it is told who that is, and connecting to it counts
// as a client of its forward. connect is nil where there is none.
func (a *Agent) Carried(vm string, client, at netip.AddrPort, meant func(port uint16, label string) bool) (key string, connect func(context.Context) (net.Conn, error)) {
	a.mu.Lock()
	v := a.find(vm)
	a.mu.Unlock()
	if v == nil {
		return "", nil
	}
	s := v.forwards.Carried(meant)
	if s == nil {
		return "", nil
	}
	k := s.Key()
	key = strings.Join([]string{vm, k.Proto, strconv.Itoa(int(k.Port)), k.Addr.String(), k.Decision, k.Socket}, " ")
	if own := s.OnBehalf(client, at); own != s {
		s, key = own, key+" "+client.String()
	}
	return key, func(ctx context.Context) (net.Conn, error) {
		c, err := s.Dial(ctx)
		if errors.Is(err, errors.ErrUnsupported) {
			return serve.Connect(ctx, serve.LoopbackPair, a.served(s))
		}
		return c, err
	}
}
