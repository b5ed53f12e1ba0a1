package endpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strconv"
	"strings"
	"time"
)

// DefaultPort is the vsock port of the guest agent. It is below 1024, so only
// a process with CAP_NET_BIND_SERVICE in the guest can own it
// (vsock's LAST_RESERVED_PORT is 1023, net/vmw_vsock/af_vsock.c).
const DefaultPort = 1021

// anyID is VMADDR_CID_ANY and VMADDR_PORT_ANY of linux/vm_sockets.h; neither
// names a peer that could be dialled.
const anyID = math.MaxUint32

// hostCID is VMADDR_CID_HOST of linux/vm_sockets.h.
const hostCID = 2

// Kinds of endpoints.
const (
	SchemeVsock  = "vsock"
	SchemeHybrid = "hybrid"
	SchemeUnix   = "unix"
	SchemeSerial = "serial"
	SchemeExec   = "exec"
	// SchemeSSH is one that a relay on another host dials; see [Remote].
	SchemeSSH   = "ssh"
	schemeStdio = "stdio"
)

// Endpoint is how to reach a guest agent, or where a guest agent listens. Its
// zero value is no endpoint; use [Parse] or [ParseListen].
type Endpoint struct {
	// Scheme is one of the Scheme constants.
	Scheme string
	// CID is the guest's vsock context ID; 0 on the listening side.
	CID uint32
	// Port is the vsock port, for vsock and hybrid.
	Port uint32
	// Path is the socket or device, for hybrid, unix and serial.
	Path string
	// Command is what /bin/sh runs, for exec.
	Command string
	// via dials it, for ssh.
	via Dialer
}

// Dialer dials a guest agent by way of something that this package knows nothing of. What it returns
// has deadlines, and is no descriptor.
type Dialer interface {
	Dial(ctx context.Context) (net.Conn, error)
}

// Remote is a guest agent on another host. name is that host's, and kind the Scheme of what leads to the agent there.
func Remote(name, kind string, via Dialer) Endpoint {
	return Endpoint{Scheme: SchemeSSH, Path: name + "/" + kind, via: via}
}

// Parse reads an endpoint as the host writes it: vsock:CID[:PORT],
// hybrid:PATH[:PORT], unix:PATH, serial:PATH or exec:COMMAND.
func Parse(s string) (Endpoint, error) {
	e, err := parse(s)
	if err != nil {
		return Endpoint{}, fmt.Errorf("endpoint %q: %w", s, err)
	}
	return e, nil
}

func parse(s string) (Endpoint, error) {
	scheme, rest, found := strings.Cut(s, ":")
	if !found || rest == "" {
		return Endpoint{}, errors.New("want vsock:CID[:PORT], hybrid:PATH[:PORT], unix:PATH, serial:PATH or exec:COMMAND")
	}
	e := Endpoint{Scheme: scheme}
	var err error
	switch scheme {
	case SchemeVsock:
		cid, port, hasPort := strings.Cut(rest, ":")
		if e.CID, err = parseID("CID", cid); err != nil {
			return Endpoint{}, err
		}
		if e.CID == hostCID {
			return Endpoint{}, errors.New("CID 2 is the host itself; guests have 3 or more")
		}
		e.Port = DefaultPort
		if hasPort {
			e.Port, err = parseID("port", port)
		}
	case SchemeHybrid:
		e.Path, e.Port = rest, DefaultPort
		if i := strings.LastIndexByte(rest, ':'); i >= 0 && isDigits(rest[i+1:]) {
			e.Path = rest[:i]
			e.Port, err = parseID("port", rest[i+1:])
		}
		if e.Path == "" {
			err = errors.New("the path of the socket is missing")
		}
	case SchemeUnix, SchemeSerial:
		e.Path = rest
	case SchemeExec:
		e.Command = rest
	default:
		err = fmt.Errorf("unknown kind %q: want vsock, hybrid, unix, serial or exec", scheme)
	}
	if err != nil {
		return Endpoint{}, err
	}
	return e, nil
}

// ParseListen reads an endpoint as the guest writes it: vsock[:PORT],
// unix:PATH or serial:DEVICE.
func ParseListen(s string) (Endpoint, error) {
	e, err := parseListen(s)
	if err != nil {
		return Endpoint{}, fmt.Errorf("listen endpoint %q: %w", s, err)
	}
	return e, nil
}

func parseListen(s string) (Endpoint, error) {
	scheme, rest, found := strings.Cut(s, ":")
	switch {
	case scheme == SchemeVsock && !found:
		return Endpoint{Scheme: scheme, Port: DefaultPort}, nil
	case scheme == SchemeVsock:
		port, err := parseID("port", rest)
		if err != nil {
			return Endpoint{}, err
		}
		return Endpoint{Scheme: scheme, Port: port}, nil
	case (scheme == SchemeUnix || scheme == SchemeSerial) && rest != "":
		return Endpoint{Scheme: scheme, Path: rest}, nil
	}
	return Endpoint{}, errors.New("want vsock[:PORT], unix:PATH or serial:DEVICE")
}

// parseID reads a vsock CID or port; 0 and the "any" value name nobody.
func parseID(what, s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 || n == anyID || !isDigits(s) {
		return 0, fmt.Errorf("%s %q is not a number from 1 to %d", what, s, uint32(anyID-1))
	}
	return uint32(n), nil
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// String is the endpoint as it is written on a command line, with the port.
func (e Endpoint) String() string {
	switch {
	case e.Scheme == SchemeVsock && e.CID == 0:
		return fmt.Sprintf("vsock:%d", e.Port)
	case e.Scheme == SchemeVsock:
		return fmt.Sprintf("vsock:%d:%d", e.CID, e.Port)
	case e.Scheme == SchemeHybrid:
		return fmt.Sprintf("hybrid:%s:%d", e.Path, e.Port)
	case e.Scheme == SchemeExec:
		return "exec:" + e.Command
	case e.Scheme == schemeStdio:
		return schemeStdio
	}
	return e.Scheme + ":" + e.Path
}

// Vsock reports whether the guest has ports of vsock, which this leads to one of.
func (e Endpoint) Vsock() bool { return e.Scheme == SchemeVsock || e.Scheme == SchemeHybrid }

// Many reports whether the endpoint allows many connections at a time, so that
// every stream can have a raw connection of its own.
func (e Endpoint) Many() bool {
	switch e.Scheme {
	case SchemeVsock, SchemeHybrid, SchemeUnix:
		return true
	case SchemeSSH:
		return !strings.HasSuffix(e.Path, "/"+SchemeSerial)
	}
	return false
}

// Sockets reports whether each of many connections is a socket of this machine's.
func (e Endpoint) Sockets() bool { return e.Many() && e.Scheme != SchemeSSH }

// Timeout bounds connect and handshake. A command may log in somewhere, and sshd alone waits for two name servers, 10 s
// each, where it looks up the client.
func (e Endpoint) Timeout() time.Duration {
	if e.Scheme == SchemeExec {
		return time.Minute
	}
	return 15 * time.Second
}

// HalfCloses reports whether an end that one side of a raw connection writes leaves the other
// direction as it is. A VMM of a hybrid endpoint shuts both down (recv_pkt in connection.rs of Firecracker).
func (e Endpoint) HalfCloses() bool { return e.Scheme != SchemeHybrid }

// Dial makes a connection to an endpoint, in the host. What it returns has deadlines. For
// exec it is a [Command], whose lines on standard error go to logOutput.
func Dial(ctx context.Context, e Endpoint, logOutput func(string)) (net.Conn, error) {
	var (
		conn net.Conn
		err  error
	)
	switch e.Scheme {
	case SchemeVsock:
		conn, err = dialVsock(ctx, e.CID, e.Port)
	case SchemeUnix:
		conn, err = dialAgent(ctx, e.Path)
	case SchemeSerial:
		conn, err = dialSerial(ctx, e.Path)
	case SchemeHybrid:
		conn, err = dialHybrid(ctx, e.Path, e.Port)
	case SchemeExec:
		var c *Command
		if c, err = Run(logOutput, "/bin/sh", "-c", e.Command); err == nil {
			return c, nil
		}
	case SchemeSSH:
		return e.via.Dial(ctx) // whose errors name the host
	default:
		err = errors.New("not an endpoint to dial")
	}
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", e, err)
	}
	return conn, nil
}

// Listen opens an endpoint that allows many connections, in the guest: vsock or
// unix. For vsock only the host, and the CIDs in allowed, may connect; who else
// tries is logged.
func Listen(e Endpoint, allowed []uint32, log *slog.Logger) (net.Listener, error) {
	var (
		l   net.Listener
		err error
	)
	switch e.Scheme {
	case SchemeVsock:
		l, err = listenVsock(e.Port, allowed, func(cid uint32) {
			log.Warn("refused a vsock connection that is not from the host", "cid", cid)
		})
	case SchemeUnix:
		l, err = ListenSocket(e.Path, 0o600)
	default:
		err = errors.New("not an endpoint to listen on")
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", e, err)
	}
	return l, nil
}
