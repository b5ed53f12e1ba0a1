package interop

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/logbuf"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// A way of reaching the guest agent: a raw connection for each stream, or one session for all.
type way struct{ name, scheme, path, flag string }

var ways = []way{{"raw", "unix", "unix", ""}, {"session", "serial", "mux", "--line"}}

func TestAGuestAgentWrittenFromTheDocumentServesItsPorts(t *testing.T) {
	for _, by := range ways {
		for auth, key := range map[string]string{"psk": newKey(t), "none": ""} {
			t.Run(by.name+" with auth "+auth, func(t *testing.T) {
				page := strings.Repeat("a page of the guest\n", 20_000)
				web := serveHTTP(t, page)
				echo := serve(t, func(c *net.TCPConn) { // answers only when it has read everything
					b, _ := io.ReadAll(c)
					_, _ = c.Write(b)
				})
				reset := serve(t, func(c *net.TCPConn) { // once it is told to
					_, _ = c.Write([]byte("some of it"))
					_, _ = c.Read(make([]byte, 1))
					_ = c.SetLinger(0)
				})
				guest := startGuest(t, by, key, "--clock-ahead", "7200", "--announce", web, echo, reset)
				host := startHost(t, guest.vm(key))

				vm := host.await(t, "connected, with its ports and its clock", func(vm status.VM) bool {
					return vm.State == status.Connected && allActive(vm, 3) && vm.ClockAhead > 7000
				})
				if vm.Auth != auth || vm.AgentVersion != "interop" {
					t.Errorf("auth %q and version %q, want %q and interop", vm.Auth, vm.AgentVersion, auth)
				}
				for range 20 { // more than are dialled in advance: some go over connections that are used again
					if got := get(t, local(web)); got != page {
						t.Fatalf("a page of %d bytes, want %d", len(got), len(page))
					}
				}
				sent := make([]byte, 1<<20) // more than fits in any window
				_, _ = rand.Read(sent)
				if got := exchange(t, local(echo), sent); !bytes.Equal(got, sent) {
					t.Errorf("%d bytes came back after the client had ended its direction, want %d", len(got), len(sent))
				}
				c, some := connect(t, local(reset)), make([]byte, len("some of it"))
				if _, err := io.ReadFull(c, some); err != nil {
					t.Fatal(err)
				}
				_, _ = c.Write([]byte("!"))
				if n, err := c.Read(some); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("a service that resets: %d bytes, %v", n, err)
				}
				host.await(t, "reached by "+by.path, func(vm status.VM) bool {
					return !slices.ContainsFunc(vm.Forwards, func(f status.Forward) bool { return f.Path != by.path })
				})
				host.await(t, "told of the reset", func(vm status.VM) bool {
					return slices.ContainsFunc(vm.Forwards, func(f status.Forward) bool { return strings.HasPrefix(f.LastError, "stream reset by the other end") })
				})
			})
		}
	}
}

func TestAGuestAgentWithAnotherKeyIsRefused(t *testing.T) {
	guest := startGuest(t, ways[0], newKey(t))
	host := startHost(t, guest.vm(newKey(t)))
	host.await(t, "refused", func(vm status.VM) bool {
		return vm.State != status.Connected && strings.Contains(vm.Error, "the guest agent's key is not the host agent's")
	})
}

func TestAHostThatDoesNotProveTheKeyIsRefused(t *testing.T) {
	guest := startGuest(t, ways[0], newKey(t))
	c, err := net.Dial("unix", guest.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	next := func() (wire.FrameKind, []byte) {
		k, body, err := (&wire.FrameReader{R: c}).Next()
		if err != nil {
			t.Fatal(err)
		}
		return k, body
	}
	hello := wire.HelloFrame{Min: 2, Max: 2, HasKey: true, Nonce: [wire.NonceSize]byte{1}}
	_, _ = c.Write(wire.AppendFrame(nil, wire.FrameHello, hello.Encode()))
	var reply wire.ReplyFrame
	if k, body := next(); k != wire.FrameReply || !reply.Decode(body) {
		t.Fatalf("frame of kind %d instead of a reply", k)
	}
	proof := wire.VerdictFrame{Nonce: reply.Nonce, Proof: [32]byte{1}}
	_, _ = c.Write(wire.AppendFrame(nil, wire.FrameProof, proof.Encode()))
	var ready wire.VerdictFrame
	if k, body := next(); k != wire.FrameReady || !ready.Decode(body) || ready.Nonce != hello.Nonce || ready.Status != wire.StatusAuth {
		t.Errorf("frame of kind %d and verdict %+v, want ready with status %d", k, ready, wire.StatusAuth)
	}
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection goes on: %d, %v", n, err)
	}
}

// A later version may have features, messages, fields, ends and protocols that this host does not know.
func TestWhatTheHostDoesNotKnowIsSkipped(t *testing.T) {
	for _, by := range ways {
		t.Run(by.name, func(t *testing.T) {
			key, web := newKey(t), serveHTTP(t, "hello")
			guest := startGuest(t, by, key, "--unknown", "--clock-ahead", "7200", "--announce", web)
			host := startHost(t, guest.vm(key))
			host.await(t, "connected, with its port and its clock", func(vm status.VM) bool {
				return vm.State == status.Connected && allActive(vm, 1) && vm.ClockAhead > 7000
			})
			if got := get(t, local(web)); got != "hello" {
				t.Errorf("a page %q", got)
			}
		})
	}
}

func newKey(t *testing.T) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "key")
	if err := keyfile.WritePrivate(file, keyfile.New().Encode()); err != nil {
		t.Fatal(err)
	}
	return file
}

// guest is the agent in Python.
type guest struct{ scheme, socket string }

func startGuest(t *testing.T, by way, key string, args ...string) guest {
	t.Helper()
	g := guest{by.scheme, filepath.Join(t.TempDir(), "guest.sock")}
	args = append([]string{"-B", "agent.py", "--listen", g.socket}, args...)
	if key != "" {
		args = append(args, "--key-file", key)
	}
	if by.flag != "" {
		args = append(args, by.flag)
	}
	start(t, "python3", args...)
	eventually(t, "the guest agent to listen", func() bool {
		c, err := net.Dial("unix", g.socket)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return g
}

// vm is what the host agent is told of it.
func (g guest) vm(key string) string {
	vm := "dev=" + g.scheme + ":" + g.socket
	if key != "" {
		vm += ",key=" + key
	}
	return vm
}

type host struct{ control *control.Client }

func startHost(t *testing.T, vm string) host {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "control.sock")
	start(t, hostAgent, "run", "--socket", socket, "--vm", vm)
	return host{control.NewClient(socket)}
}

// await waits until the VM is as ok wants it.
func (h host) await(t *testing.T, what string, ok func(status.VM) bool) status.VM {
	t.Helper()
	var last status.VM
	defer func() {
		if t.Failed() {
			t.Logf("the last status was %+v", last)
		}
	}()
	eventually(t, "the VM to be "+what, func() bool {
		st, err := h.control.Status(t.Context())
		if err != nil || len(st.VMs) != 1 {
			return false
		}
		last = st.VMs[0]
		return ok(last)
	})
	return last
}

func allActive(vm status.VM, n int) bool {
	return len(vm.Forwards) == n && !slices.ContainsFunc(vm.Forwards, func(f status.Forward) bool { return f.State != status.Active })
}

// start starts a program and ends it with the test.
func start(t *testing.T, name string, args ...string) {
	t.Helper()
	log := &logbuf.Buffer{}
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		timeout := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		if !timeout.Stop() {
			t.Errorf("%s did not end when told to", name)
		}
		if said := log.String(); t.Failed() || strings.Contains(said, "DATA RACE") || strings.Contains(said, "Traceback") {
			t.Errorf("%v said:\n%s", cmd, said)
		}
	})
}

// guestIP is where the services listen: a loopback address that the host agent leaves alone, as both are on one machine here.
const guestIP = "127.0.0.5"

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", guestIP, ownnet.FreePort(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func serve(t *testing.T, handle func(*net.TCPConn)) (addr string) {
	t.Helper()
	l := listen(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c.(*net.TCPConn))
			}()
		}
	}()
	return l.Addr().String()
}

func serveHTTP(t *testing.T, page string) (addr string) {
	t.Helper()
	l := listen(t)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, page) })}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().String()
}

// local is where a service of the guest is on the host.
func local(addr string) string { return strings.Replace(addr, guestIP, "127.0.0.1", 1) }

func get(t *testing.T, addr string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	resp, err := client.Get("http://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func connect(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// exchange sends all of b, ends its direction, and reads the answer to its end.
func exchange(t *testing.T, addr string, b []byte) []byte {
	t.Helper()
	c := connect(t, addr)
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		t.Error(err)
	}
	return got
}

// eventually polls: what is waited for happens in other processes.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
