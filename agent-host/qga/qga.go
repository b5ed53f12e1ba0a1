package qga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
)

// Channel is the name of the virtio-serial port that leads to the QEMU guest agent.
const Channel = "org.qemu.guest_agent.0"

var (
	// ErrNone: the domain has no channel to a QEMU guest agent, or none answers there.
	ErrNone = errors.New("no QEMU guest agent")
	// ErrRefused: the QEMU guest agent is set up not to run programs or to write files.
	ErrRefused = errors.New("the QEMU guest agent does not do that")
)

const (
	callLimit    = 20 * time.Second       // for libvirt's own part of a call
	answerLimit  = 30 * time.Second       // for one command
	scriptLimit  = 10 * time.Minute       // for a script
	pollInterval = 200 * time.Millisecond // whether a script has ended
	chunkSize    = 128 << 10              // bytes of a file in one command
	maxSaid      = 64 << 10               // bytes that are taken of what a script prints
)

// Said is how a script in a guest ended, and the beginning of what it printed, which is whatever the guest likes.
type Said struct {
	Exit     int
	Out, Err string
}

// Run runs a shell script as root in a running domain, by name or UUID, by means of its QEMU guest agent. The script
// is in a file of its own meanwhile, which only root can read. sent is called with the number of bytes that have arrived.
// The error wraps [libvirt.ErrNoDomain], [ErrNone] or [ErrRefused].
func Run(ctx context.Context, c *libvirt.Conn, domain string, script []byte, sent func(n int)) (Said, error) {
	ctx, cancel := context.WithTimeout(ctx, scriptLimit)
	defer cancel()
	dom, err := find(ctx, c, domain)
	if err != nil {
		return Said{}, err
	}
	a := agent{c, dom}
	made, err := a.shell(ctx, "umask 077; mktemp /run/rum-agent.XXXXXX")
	if err != nil {
		return Said{}, err
	}
	path := firstLine(made.Out)
	if made.Exit != 0 || path == "" {
		return Said{}, fmt.Errorf("domain %s: a file in the guest's /run, which has to be writable and have room, could not be made with mktemp: %.200q", dom.Name, made.Err)
	}
	if err := a.write(ctx, path, script, sent); err != nil {
		_, left := a.shell(context.WithoutCancel(ctx), `rm -f "$0"`, path)
		return Said{}, errors.Join(err, left)
	}
	return a.shell(ctx, `sh "$0"; code=$?; rm -f "$0"; exit $code`, path)
}

func find(ctx context.Context, c *libvirt.Conn, domain string) (golibvirt.Domain, error) {
	defer c.Bound(ctx, callLimit)()
	return c.Lookup(domain)
}

// agent is the QEMU guest agent of a domain.
type agent struct {
	conn *libvirt.Conn
	dom  golibvirt.Domain
}

// ask has one command done, and decodes what it returns into result. The end of ctx does not interrupt it, because that would
// end the connection, over which there may be something to take away.
func (a agent) ask(ctx context.Context, command string, arguments, result any) error {
	text, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments"`
	}{command, arguments})
	if err != nil {
		return err
	}
	defer a.conn.Bound(context.WithoutCancel(ctx), answerLimit+callLimit)()
	answer, err := a.conn.Client().QEMUDomainAgentCommand(a.dom, string(text), int32(answerLimit/time.Second), 0)
	if err != nil {
		return a.advise(fmt.Errorf("domain %s: %s: %w", a.dom.Name, command, err))
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
		return fmt.Errorf("domain %s: the answer to %s: %w", a.dom.Name, command, err)
	}
	return nil
}

// Numbers of errors of virErrorNumber that the library has no names for.
const (
	errAgentCommandTimeout golibvirt.ErrorNumber = 111
	errAgentCommandFailed  golibvirt.ErrorNumber = 112
)

// advise tells apart what can be wrong with a QEMU guest agent.
func (a agent) advise(err error) error {
	switch {
	case libvirt.IsCode(err, golibvirt.ErrArgumentUnsupported): // no channel is configured
		return libvirt.Advise(fmt.Errorf("%w: %w", ErrNone, err), "leave out --via to go in over ssh, or give the domain a channel "+Channel)
	case libvirt.IsCode(err, golibvirt.ErrOperationInvalid): // the domain is off, or paused
		return libvirt.Advise(fmt.Errorf("%w: %w", ErrNone, err), "start the domain, or resume it")
	case libvirt.IsCode(err, golibvirt.ErrAgentUnresponsive), libvirt.IsCode(err, golibvirt.ErrAgentUnsynced), libvirt.IsCode(err, errAgentCommandTimeout):
		return libvirt.Advise(fmt.Errorf("%w: %w", ErrNone, err), "have qemu-guest-agent installed and running in the VM, or leave out --via to go in over ssh")
	case libvirt.IsCode(err, errAgentCommandFailed), libvirt.IsCode(err, golibvirt.ErrInternalError): // the latter before libvirt 10
		return libvirt.Advise(fmt.Errorf("%w: %w", ErrRefused, err), "leave out --via to go in over ssh, or allow guest-exec and guest-file-* in its settings in the VM")
	}
	return err
}

// shell runs a shell command with arguments, the first of which it knows as $0, and waits for its end.
func (a agent) shell(ctx context.Context, command string, args ...string) (Said, error) {
	var started struct {
		PID int64 `json:"pid"`
	}
	err := a.ask(ctx, "guest-exec", map[string]any{
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
		if err := a.ask(ctx, "guest-exec-status", map[string]any{"pid": started.PID}, &status); err != nil {
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
		case <-time.After(pollInterval):
		}
	}
}

// write writes a file that is there.
func (a agent) write(ctx context.Context, path string, data []byte, sent func(n int)) (err error) {
	var handle int64
	if err := a.ask(ctx, "guest-file-open", map[string]any{"path": path, "mode": "w"}, &handle); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, a.ask(ctx, "guest-file-close", map[string]any{"handle": handle}, nil))
	}()
	for len(data) > 0 {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var written struct {
			Count int `json:"count"`
		}
		chunk := data[:min(len(data), chunkSize)]
		if err := a.ask(ctx, "guest-file-write", map[string]any{"handle": handle, "buf-b64": chunk}, &written); err != nil {
			return err
		}
		if written.Count <= 0 || written.Count > len(chunk) {
			return fmt.Errorf("domain %s: the guest has written %d bytes of %d", a.dom.Name, written.Count, len(chunk))
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
