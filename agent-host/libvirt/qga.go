package libvirt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
)

// The QEMU guest agent runs in a guest and does what libvirt passes on to it over a virtio-serial port, as root. Its
// commands are JSON; see its schema, qga/qapi-schema.json of QEMU. What it answers comes from the guest.

// QGAChannel is the name of the virtio-serial port that leads to the QEMU guest agent.
const QGAChannel = "org.qemu.guest_agent.0"

var (
	// ErrNoQGA: the domain has no channel to a QEMU guest agent, or none answers there.
	ErrNoQGA = errors.New("no QEMU guest agent")
	// ErrQGARefused: the QEMU guest agent is set up not to run programs or to write files.
	ErrQGARefused = errors.New("the QEMU guest agent does not do that")
)

const (
	qgaAnswer = 30 * time.Second       // for one command
	qgaScript = 10 * time.Minute       // for a script
	qgaPoll   = 200 * time.Millisecond // whether a script has ended
	qgaChunk  = 128 << 10              // bytes of a file in one command
	maxSaid   = 64 << 10               // bytes that are taken of what a script prints
)

// Said is how a script in a guest ended, and the beginning of what it printed, which is whatever the guest likes.
type Said struct {
	Exit     int
	Out, Err string
}

// RunInGuest runs a shell script as root in a running domain, by name or UUID, by means of its QEMU guest agent. The script
// is in a file of its own meanwhile, which only root can read. sent is called with the number of bytes that have arrived.
// The error wraps [ErrNoDomain], [ErrNoQGA] or [ErrQGARefused].
func (c *Conn) RunInGuest(ctx context.Context, domain string, script []byte, sent func(n int)) (Said, error) {
	ctx, cancel := context.WithTimeout(ctx, qgaScript)
	defer cancel()
	dom, err := c.find(ctx, domain)
	if err != nil {
		return Said{}, err
	}
	q := qga{c, dom}
	made, err := q.shell(ctx, "umask 077; mktemp /run/rum-agent.XXXXXX")
	if err != nil {
		return Said{}, err
	}
	path := firstLine(made.Out)
	if made.Exit != 0 || path == "" {
		return Said{}, fmt.Errorf("domain %s: making a file in the guest: %.200q", dom.Name, made.Err)
	}
	if err := q.write(ctx, path, script, sent); err != nil {
		_, left := q.shell(context.WithoutCancel(ctx), `rm -f "$0"`, path)
		return Said{}, errors.Join(err, left)
	}
	return q.shell(ctx, `sh "$0"; code=$?; rm -f "$0"; exit $code`, path)
}

func (c *Conn) find(ctx context.Context, domain string) (golibvirt.Domain, error) {
	defer c.Bound(ctx, refreshLimit)()
	return c.Lookup(domain)
}

// qga is the QEMU guest agent of a domain.
type qga struct {
	conn *Conn
	dom  golibvirt.Domain
}

// ask has one command done, and decodes what it returns into result. The end of ctx does not interrupt it, because that would
// end the connection, over which there may be something to take away.
func (q qga) ask(ctx context.Context, command string, arguments, result any) error {
	text, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments"`
	}{command, arguments})
	if err != nil {
		return err
	}
	defer q.conn.Bound(context.WithoutCancel(ctx), qgaAnswer+refreshLimit)()
	answer, err := q.conn.lv.QEMUDomainAgentCommand(q.dom, string(text), int32(qgaAnswer/time.Second), 0)
	if err != nil {
		return q.advise(fmt.Errorf("domain %s: %s: %w", q.dom.Name, command, err))
	}
	var returned struct {
		Return json.RawMessage `json:"return"`
	}
	if len(answer) == 1 {
		err = json.Unmarshal([]byte(answer[0]), &returned)
	}
	if err == nil && result != nil {
		err = json.Unmarshal(returned.Return, result)
	}
	if err != nil {
		return fmt.Errorf("domain %s: the answer to %s: %w", q.dom.Name, command, err)
	}
	return nil
}

// Numbers of errors of virErrorNumber that the library has no names for.
const (
	errAgentCommandTimeout golibvirt.ErrorNumber = 111
	errAgentCommandFailed  golibvirt.ErrorNumber = 112
)

// advise tells apart what can be wrong with a QEMU guest agent.
func (q qga) advise(err error) error {
	switch {
	case IsCode(err, golibvirt.ErrArgumentUnsupported): // no channel is configured
		return Advise(fmt.Errorf("%w: %w", ErrNoQGA, err), "leave out --via to go in over ssh, or give the domain a channel "+QGAChannel)
	case IsCode(err, golibvirt.ErrOperationInvalid): // the domain is off, or paused
		return Advise(fmt.Errorf("%w: %w", ErrNoQGA, err), "start the domain, or resume it")
	case IsCode(err, golibvirt.ErrAgentUnresponsive), IsCode(err, golibvirt.ErrAgentUnsynced), IsCode(err, errAgentCommandTimeout):
		return Advise(fmt.Errorf("%w: %w", ErrNoQGA, err), "have qemu-guest-agent installed and running in the VM, or leave out --via to go in over ssh")
	case IsCode(err, errAgentCommandFailed), IsCode(err, golibvirt.ErrInternalError): // the latter before libvirt 10
		return Advise(fmt.Errorf("%w: %w", ErrQGARefused, err), "leave out --via to go in over ssh, or allow guest-exec and guest-file-* in its settings in the VM")
	}
	return err
}

// shell runs a shell command with arguments, the first of which it knows as $0, and waits for its end.
func (q qga) shell(ctx context.Context, command string, args ...string) (Said, error) {
	var started struct {
		PID int64 `json:"pid"`
	}
	err := q.ask(ctx, "guest-exec", map[string]any{
		"path": "/bin/sh", "arg": append([]string{"-c", command}, args...), "capture-output": true,
	}, &started)
	if err != nil {
		return Said{}, err
	}
	for {
		var status struct {
			Exited   bool   `json:"exited"`
			ExitCode int    `json:"exitcode"`
			Signal   int    `json:"signal"`
			Out      []byte `json:"out-data"`
			Err      []byte `json:"err-data"`
		}
		if err := q.ask(ctx, "guest-exec-status", map[string]any{"pid": started.PID}, &status); err != nil {
			return Said{}, err
		}
		if status.Exited {
			said := Said{Exit: status.ExitCode, Out: beginning(status.Out), Err: beginning(status.Err)}
			if status.Signal != 0 {
				said.Exit = 128 + status.Signal // as a shell says it
			}
			return said, nil
		}
		select {
		case <-ctx.Done():
			return Said{}, ctx.Err()
		case <-time.After(qgaPoll):
		}
	}
}

// write writes a file that is there.
func (q qga) write(ctx context.Context, path string, data []byte, sent func(n int)) (err error) {
	var handle int64
	if err := q.ask(ctx, "guest-file-open", map[string]any{"path": path, "mode": "w"}, &handle); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, q.ask(ctx, "guest-file-close", map[string]any{"handle": handle}, nil))
	}()
	for len(data) > 0 {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var written struct {
			Count int `json:"count"`
		}
		chunk := data[:min(len(data), qgaChunk)]
		if err := q.ask(ctx, "guest-file-write", map[string]any{"handle": handle, "buf-b64": chunk}, &written); err != nil {
			return err
		}
		if written.Count <= 0 || written.Count > len(chunk) {
			return fmt.Errorf("domain %s: the guest has written %d bytes of %d", q.dom.Name, written.Count, len(chunk))
		}
		data = data[written.Count:]
		sent(written.Count)
	}
	return nil
}

func beginning(text []byte) string { return string(text[:min(len(text), maxSaid)]) }

// firstLine is the first line of a text, if it is short enough for a path.
func firstLine(text string) string {
	for i, c := range text {
		if c == '\n' && i < maxPath {
			return text[:i]
		}
	}
	return ""
}

// maxPath is PATH_MAX of linux/limits.h.
const maxPath = 4096
