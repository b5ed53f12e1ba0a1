package hostagent

import (
	"context"
	"errors"
	"fmt"

	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/relay"
)

// sshPort is that of TCP, and that of vsock at which a guest's systemd has its SSH server listen,
// from version 256 on (systemd-ssh-generator(8)).
const sshPort = 22

var errStopped = errors.New("the agent ends")

// serveSSH connects a client to the SSH server that systemd has in a guest, where none is announced.
// It needs no guest agent. The end of such a connection is as the kernel tells it, to which a
// reset of vsock is an end: SSH itself knows what was cut.
func (a *Agent) serveSSH(ctx context.Context, v *vm, c *relay.Client) error {
	client := c.Conn()
	e := v.Endpoint
	e.Port = sshPort
	conn, err := endpoint.Dial(ctx, e, nil)
	if err != nil {
		client.Abort()
		return fmt.Errorf("nothing is announced on port %d of %s, and no SSH server of systemd's answers: %s: %w", sshPort, v.Name, e, err)
	}
	guest, err := relay.Raw(conn)
	if err != nil {
		client.Abort()
		_ = conn.Close()
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
