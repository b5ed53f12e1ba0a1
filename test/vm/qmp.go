package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"
)

// qmp executes one command on QEMU's monitor at the unix socket path, on a
// connection of its own, and returns what QEMU returned. The protocol is in
// QEMU's docs/interop/qmp-spec: a greeting, capabilities negotiation, then one
// answer per command with events in between.
func qmp(ctx context.Context, path, command string, args any) (json.RawMessage, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("qmp %s: %w", command, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	answers := json.NewDecoder(conn)
	var greeting struct{ QMP json.RawMessage }
	if err := answers.Decode(&greeting); err != nil || greeting.QMP == nil {
		return nil, fmt.Errorf("qmp %s: no greeting from %s: %w", command, path, cause(ctx, err))
	}
	if _, err := execute(conn, answers, "qmp_capabilities", nil); err != nil {
		return nil, fmt.Errorf("qmp %s: %w", command, cause(ctx, err))
	}
	result, err := execute(conn, answers, command, args)
	if err != nil {
		return nil, fmt.Errorf("qmp %s: %w", command, cause(ctx, err))
	}
	return result, nil
}

// cause prefers the context's error to the deadline error it provoked.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func execute(conn net.Conn, answers *json.Decoder, command string, args any) (json.RawMessage, error) {
	request := struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, args}
	if err := json.NewEncoder(conn).Encode(request); err != nil {
		return nil, err
	}
	for {
		var answer struct {
			Event  string
			Return json.RawMessage
			Error  *struct{ Class, Desc string }
		}
		if err := answers.Decode(&answer); err != nil {
			return nil, err
		}
		switch {
		case answer.Event != "":
		case answer.Error != nil:
			return nil, fmt.Errorf("%s: %s", answer.Error.Class, answer.Error.Desc)
		default:
			return answer.Return, nil
		}
	}
}
