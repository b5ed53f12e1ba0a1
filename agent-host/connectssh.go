package hostagent

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/relay"
)

// sshPort is that of TCP, and that of vsock at which a guest's systemd has its SSH server listen,
// from version 256 on (systemd-ssh-generator(8)).
const sshPort = 22

var errStopped = errors.New("the agent ends")

// connectSSH connects to the SSH server that systemd has in a guest, where none is announced.
// It needs no guest agent. The end of such a connection is as the kernel tells it, to which a
// reset of vsock is an end: SSH itself knows what was cut.
func (a *Agent) connectSSH(ctx context.Context, v *vm, handOver bool) (net.Conn, error) {
	e := v.Endpoint
	e.Port = sshPort
	conn, err := endpoint.Dial(ctx, e, nil)
	if err != nil {
		return nil, fmt.Errorf("nothing is announced on port %d of %s, and no SSH server of systemd's answers: %s: %w", sshPort, v.Name, e, err)
	}
	if handOver {
		return conn, nil
	}
	theirs, err := serve.Connect(ctx, serve.LoopbackPair, func(c *relay.Client) error { return a.relaySSH(conn, c) })
	if err != nil {
		_ = conn.Close() // which nobody may have taken over
	}
	return theirs, err
}

// relaySSH relays between a connection to an SSH server and a client.
func (a *Agent) relaySSH(conn net.Conn, c *relay.Client) error {
	client := c.Conn()
	guest, err := relay.Raw(conn)
	if err != nil {
		client.Abort()
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ctx == nil || a.stopped {
		client.Abort()
		guest.Abort()
		return errStopped
	}
	stop := context.AfterFunc(a.ctx, func() { client.Abort(); guest.Abort() })
	relay.Relay(client, guest, new(relay.Counters), func(error) { stop() })
	return nil
}
