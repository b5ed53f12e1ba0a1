package remote

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/yamux"
	"go.uber.org/goleak"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/remote/address"
	"github.com/rum-vm/rum-agent/agent-host/remote/protocol"
)

// asRelay makes the test binary what ssh leads to: a relay that means ill, in a way that it names.
const asRelay = "RUM_TEST_HOSTILE"

func TestMain(m *testing.M) {
	if mode := os.Getenv(asRelay); mode != "" {
		hostile[mode].relay()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// raw writes a relay's line and, once the host agent has opened its first stream, what it is told.
func raw(b []byte) {
	_, _ = os.Stdout.Write(protocol.RelayLine("v1"))
	_, _ = protocol.ReadHostLine(os.Stdin)
	_, _ = io.ReadFull(os.Stdin, make([]byte, 12))
	_, _ = os.Stdout.Write(b)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the host agent has had enough
}

func frame(kind uint8, flags uint16, id, length uint32) []byte {
	b := make([]byte, 12)
	b[1] = kind
	binary.BigEndian.PutUint16(b[2:], flags)
	binary.BigEndian.PutUint32(b[4:], id)
	binary.BigEndian.PutUint32(b[8:], length)
	return b
}

// data is a frame of the first stream.
func data(b []byte) []byte { return append(frame(0, 2, 1, uint32(len(b))), b...) }

// streams serves the session as yamux does, sends an inventory, and has each other stream done with.
func streams(do func(*yamux.Stream)) {
	_, _ = os.Stdout.Write(protocol.RelayLine("v1"))
	if _, err := protocol.ReadHostLine(os.Stdin); err != nil {
		return
	}
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false
	c.LogOutput = io.Discard
	s, err := yamux.Server(struct {
		io.Reader
		io.WriteCloser
	}{os.Stdin, os.Stdout}, c)
	if err != nil {
		return
	}
	for first := true; ; first = false {
		st, err := s.AcceptStream()
		if err != nil {
			return
		}
		if first {
			b, _ := protocol.AppendInventory(nil, protocol.Inventory{Domains: []protocol.Domain{aDomain(1)}})
			_, _ = st.Write(b)
			continue
		}
		go do(st)
	}
}

func aDomain(i uint32) protocol.Domain {
	id := uuid.UUID{1}
	binary.BigEndian.PutUint32(id[4:], i)
	return protocol.Domain{Name: fmt.Sprint("vm", i), UUID: id, State: protocol.Running, Agent: "vsock"}
}

var hostile = map[string]struct {
	relay func()
	// want is part of what is said of it.
	want string
	// dial is part of what is said of a connection to its VM instead.
	dial string
}{
	"opens a stream": {relay: func() { raw(frame(1, 1, 2, 0)) }, want: "a relay opens none"},
	"pings":          {relay: func() { raw(frame(2, 1, 0, 1)) }, want: "yamux ping"},
	"long frames":    {relay: func() { raw(frame(0, 2, 1, 1<<31)) }, want: "at most"},
	"a long list":    {relay: func() { raw(data([]byte{0xff, 0xff, 0xff, 0xff})) }, want: "its list of VMs has 4294967295 bytes"},
	"a list of nonsense": {relay: func() {
		raw(data(append([]byte{0, 0, 0, 4}, "\x1b[2J"...)))
	}, want: "its list of VMs: invalid character"},
	"noise without end": {relay: func() {
		for err := error(nil); err == nil; {
			_, err = os.Stdout.Write(bytes.Repeat([]byte("x"), 4096))
		}
	}, want: "no relay answers, but something that says"},
	"another protocol": {relay: func() { raw([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }, want: "lost"},
	"no answer": {relay: func() {
		streams(func(st *yamux.Stream) { _, _ = io.Copy(io.Discard, st) })
	}, dial: "context deadline exceeded"},
	"an answer without end": {relay: func() {
		streams(func(st *yamux.Stream) { _, _ = st.Write([]byte{1, 0xff, 0xff}) })
	}, dial: "answer has a reason of 65535 bytes"},
	"an answer for a terminal": {relay: func() {
		streams(func(st *yamux.Stream) { _, _ = st.Write(protocol.AppendAnswer(nil, errors.New("\x1b]0;"))) })
	}, dial: "on server: ?]0;"},
	"an end": {relay: func() {
		streams(func(st *yamux.Stream) { _ = st.Close() })
	}, dial: "unexpected EOF"},
}

// sshIs has what is called ssh be this program.
func sshIs(t *testing.T, mode string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ssh"), fmt.Appendf(nil, "#!/bin/sh\n%s='%s' exec %s\n", asRelay, mode, self), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestARelayThatMeansIllIsCutOffInWords(t *testing.T) {
	for mode, row := range hostile {
		t.Run(mode, func(t *testing.T) {
			sshIs(t, mode)
			a, err := address.Parse("ssh://server")
			if err != nil {
				t.Fatal(err)
			}
			h := &Host{Address: a, Version: "v1", Log: slog.New(slog.DiscardHandler)}
			ctx, cancel := context.WithCancel(t.Context())
			told := make(chan libvirt.Snapshot, 100)
			done := make(chan error)
			go func() {
				done <- h.Run(ctx, func(s libvirt.Snapshot) {
					select {
					case told <- s:
					default:
					}
				})
			}()
			defer func() {
				cancel()
				if err := <-done; err != nil {
					t.Errorf("Run ended with %v", err)
				}
			}()
			var s libvirt.Snapshot
			select {
			case s = <-told:
			case <-time.After(time.Minute):
				t.Fatal("nothing is said of it")
			}
			if row.want != "" {
				if s.Err == nil || !strings.Contains(s.Err.Error(), row.want) || strings.ContainsRune(s.Err.Error(), '\x1b') || len(s.Err.Error()) > 1000 {
					t.Errorf("said %q, want %q", s.Err, row.want)
				}
				return
			}
			if s.Err != nil || len(s.Domains) != 1 {
				t.Fatalf("got %+v", s)
			}
			dialling, stop := context.WithTimeout(ctx, 2*time.Second)
			defer stop()
			_, err = h.DialBridge(dialling, s.Domains[0], 80)
			if err == nil || !strings.Contains(err.Error(), row.dial) {
				t.Errorf("dialled with %v, want %q", err, row.dial)
			}
		})
	}
}
