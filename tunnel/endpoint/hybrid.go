package endpoint

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// dialHybrid reaches a vsock port through the unix socket of a VMM that emulates
// vsock in user space. The host writes "CONNECT port" and reads "OK hostport"
// (Firecracker, docs/vsock.md).
func dialHybrid(ctx context.Context, path string, port uint32) (net.Conn, error) {
	conn, err := dialUnix(ctx, path)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	answer, err := hybridConnect(conn, port)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil && !strings.HasPrefix(answer, "OK ") {
		err = fmt.Errorf("the VMM answered %q to CONNECT %d", wire.Clean(answer, 64), port)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// hybridConnect reads the answer byte by byte: what follows is the stream's.
func hybridConnect(conn io.ReadWriter, port uint32) (string, error) {
	if _, err := fmt.Fprintf(conn, "CONNECT %d\n", port); err != nil {
		return "", fmt.Errorf("the VMM refused port %d: %w", port, err)
	}
	var line strings.Builder
	var b [1]byte
	for line.Len() < 64 {
		if _, err := io.ReadFull(conn, b[:]); err != nil {
			return "", fmt.Errorf("the VMM refused port %d: %w", port, err)
		}
		if b[0] == '\n' {
			break
		}
		line.WriteByte(b[0])
	}
	return line.String(), nil
}
