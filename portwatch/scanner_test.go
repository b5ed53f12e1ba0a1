package portwatch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// eachSource runs a test once with sock_diag and once with procfs.
func eachSource(t *testing.T, test func(t *testing.T, s *portwatch.Scanner)) {
	for name, s := range map[string]*portwatch.Scanner{"default": {}, "procfs": {Proc: "/proc/"}} {
		t.Run(name, func(t *testing.T) {
			defer s.Close()
			test(t, s)
		})
	}
}

func find(t *testing.T, s *portwatch.Scanner, proto string, addr netip.AddrPort) (portlist.Listener, bool) {
	t.Helper()
	listeners, err := s.Scan()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(listeners, func(l portlist.Listener) bool { return l.Proto == proto && l.Addr == addr })
	if i < 0 {
		return portlist.Listener{}, false
	}
	return listeners[i], true
}

// self is how this process is named; the kernel keeps 15 bytes of a name.
func self() string {
	name := filepath.Base(os.Args[0])
	return fmt.Sprintf("%s[%d]", name[:min(len(name), 15)], os.Getpid())
}

func listen(t *testing.T, network, addr string) (net.Listener, netip.AddrPort) {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln, unmapped(ln.Addr().String())
}

func unmapped(s string) netip.AddrPort {
	a := netip.MustParseAddrPort(s)
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func TestAPortIsSeenToComeAndGo(t *testing.T) {
	eachSource(t, func(t *testing.T, s *portwatch.Scanner) {
		for _, at := range []struct{ network, addr string }{
			{"tcp4", "127.0.0.1:0"},
			{"tcp4", "0.0.0.0:0"},
			{"tcp6", "[::1]:0"},
			{"tcp6", "[::]:0"}, // IPv6 only
			{"tcp", ":0"},      // both families
		} {
			ln, addr := listen(t, at.network, at.addr)
			got, ok := find(t, s, "tcp", addr)
			if !ok {
				t.Fatalf("%s %s is not in the scan", at.network, addr)
			}
			if got.Process != self() {
				t.Errorf("%s %s belongs to %q, want %q", at.network, addr, got.Process, self())
			}
			ln.Close()
			if _, ok := find(t, s, "tcp", addr); ok {
				t.Errorf("%s %s is still in the scan after close", at.network, addr)
			}
		}
	})
}

func TestOnlyUnconnectedUDPSocketsAreListeners(t *testing.T) {
	eachSource(t, func(t *testing.T, s *portwatch.Scanner) {
		for _, at := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
			pc, err := net.ListenPacket("udp", at)
			if err != nil {
				t.Fatal(err)
			}
			defer pc.Close()
			addr := unmapped(pc.LocalAddr().String())
			got, ok := find(t, s, "udp", addr)
			if !ok || got.Process != self() {
				t.Errorf("unconnected %s: got %v, %v", addr, got, ok)
			}
			conn, err := net.Dial("udp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), addr.Port()).String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, ok := find(t, s, "udp", unmapped(conn.LocalAddr().String())); ok {
				t.Errorf("connected %s is in the scan", conn.LocalAddr())
			}
		}
	})
}

func TestAMappedAddressIsShownAsIPv4(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	err = errors.Join(
		syscall.SetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 0),
		syscall.Bind(fd, &syscall.SockaddrInet6{Addr: netip.MustParseAddr("::ffff:127.0.0.1").As16()}),
		syscall.Listen(fd, 1))
	if err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(name.(*syscall.SockaddrInet6).Port))
	eachSource(t, func(t *testing.T, s *portwatch.Scanner) {
		if _, ok := find(t, s, "tcp", addr); !ok {
			t.Errorf("%s is not in the scan", addr)
		}
	})
}

func TestConnectionsAreNotListeners(t *testing.T) {
	ln, addr := listen(t, "tcp4", "127.0.0.1:0")
	conn, err := net.Dial("tcp4", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	ln.Close()
	eachSource(t, func(t *testing.T, s *portwatch.Scanner) {
		for _, a := range []net.Addr{conn.LocalAddr(), accepted.LocalAddr()} {
			if _, ok := find(t, s, "tcp", unmapped(a.String())); ok {
				t.Errorf("connection from %s is in the scan", a)
			}
		}
	})
}

func TestAScannerIsUsableAfterClose(t *testing.T) {
	_, addr := listen(t, "tcp4", "127.0.0.1:0")
	var s portwatch.Scanner
	for range 3 {
		if _, ok := find(t, &s, "tcp", addr); !ok {
			t.Fatalf("%s is not in the scan", addr)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// namespaceHelper makes the test binary run scanOwnNamespace instead of tests;
// its value is the port to listen on.
const namespaceHelper = "PORTWATCH_TEST_NAMESPACE_PORT"

// loopbackUp does what "ip link set lo up" does.
func loopbackUp() error { return loopback(unix.IFF_UP) }

// loopback sets the flags of the loopback interface.
func loopback(flags uint16) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(flags)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

// scanOwnNamespace listens on one port and prints what both sources see.
func scanOwnNamespace() error {
	if err := loopbackUp(); err != nil {
		return err
	}
	ln, err := net.Listen("tcp4", "0.0.0.0:"+os.Getenv(namespaceHelper))
	if err != nil {
		return err
	}
	defer ln.Close()
	for _, s := range []*portwatch.Scanner{{}, {Proc: "/proc/"}} {
		defer s.Close()
		listeners, err := s.Scan()
		if err != nil {
			return err
		}
		for i := range listeners {
			listeners[i].Process = ""
		}
		if err := json.NewEncoder(os.Stdout).Encode(listeners); err != nil {
			return err
		}
	}
	return nil
}

func TestAScanSeesTheNamespaceOfItsProcessAndNoOther(t *testing.T) {
	_, outside := listen(t, "tcp4", "127.0.0.1:0")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", namespaceHelper, outside.Port()))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	line := fmt.Sprintf("[{\"proto\":\"tcp\",\"addr\":\"0.0.0.0:%d\",\"ephemeral\":true}]\n", outside.Port())
	if diff := cmp.Diff(strings.Repeat(line, 2), string(out)); diff != "" {
		t.Error(diff)
	}
}
