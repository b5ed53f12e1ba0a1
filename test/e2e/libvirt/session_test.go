//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/vm"
)

// user is somebody without any rights, and the directory where all that is theirs is.
type user struct {
	id  uint32
	dir string
}

// nobody is the user of that name in every Debian.
func nobody(t *testing.T) *user {
	t.Helper()
	// Below /run, because a path to a socket has at most 107 bytes (UNIX_PATH_MAX of linux/un.h).
	u := &user{id: 65534, dir: "/run/user/65534"}
	if err := os.MkdirAll(u.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(u.dir) })
	if err := os.Chown(u.dir, int(u.id), int(u.id)); err != nil {
		t.Fatal(err)
	}
	return u
}

func (u *user) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = u.dir
	cmd.Env = append(os.Environ(), "USER=nobody", "HOME="+u.dir, "XDG_RUNTIME_DIR="+u.dir, "XDG_CONFIG_HOME="+u.dir+"/config",
		"XDG_CACHE_HOME="+u.dir+"/cache", "XDG_DATA_HOME="+u.dir+"/data", "XDG_STATE_HOME="+u.dir+"/state")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.id, Gid: u.id}}
	return cmd
}

// run returns what a command prints.
func (u *user) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := u.command(name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, stderr.Bytes())
	}
	t.Logf("nobody$ %s\n%s", strings.Join(cmd.Args, " "), stdout.Bytes())
	return stdout.String()
}

// given gives the user a copy of a file.
func (u *user) given(t *testing.T, path string, mode os.FileMode) string {
	t.Helper()
	from, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(u.dir, filepath.Base(path)), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Chown(int(u.id), int(u.id)); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return to.Name()
}

const sessionURI = "qemu:///session"

// startLibvirtd runs the user's own daemon until the test ends.
func (u *user) startLibvirtd(t *testing.T) {
	t.Helper()
	conf := filepath.Join(u.dir, "config/libvirt")
	if out, err := u.command("mkdir", "-p", conf).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// virtlogd would be started by libvirtd and outlive it.
	const text = "security_driver = \"none\"\nstdio_handler = \"file\"\n"
	if err := os.WriteFile(filepath.Join(conf, "qemu.conf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	d := u.command("libvirtd")
	var log bytes.Buffer
	d.Stdout, d.Stderr = &log, &log
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Process.Signal(syscall.SIGTERM)
		d.Wait() // its exit status says nothing
		if t.Failed() {
			t.Logf("libvirtd of nobody:\n%s", log.Bytes())
		}
	})
	deadline := time.Now().Add(30 * time.Second)
	for !answers(filepath.Join(u.dir, "libvirt/libvirt-sock")) {
		if time.Now().After(deadline) {
			t.Fatal("the user's libvirtd does not answer")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestAUserWithoutRightsHasEverythingInASession has libvirtd, QEMU and the host agent run as nobody.
func TestAUserWithoutRightsHasEverythingInASession(t *testing.T) {
	u := nobody(t)
	u.startLibvirtd(t)
	kernel, initrd := guestFiles(t, "mine", vm.Initramfs{Script: serve, Agent: filepath.Join(os.Getenv(binVariable), "rum-guest-agent")})
	xml := filepath.Join(t.TempDir(), "mine.xml")
	if err := os.WriteFile(xml, []byte(domainXML("mine", u.given(t, kernel, 0o400), u.given(t, initrd, 0o400), u.dir, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	program := u.given(t, filepath.Join(os.Getenv(binVariable), "rum-host-agent"), 0o500)
	virsh := func(args ...string) string {
		return u.run(t, "virsh", append([]string{"-q", "-c", sessionURI}, args...)...)
	}
	virsh("define", u.given(t, xml, 0o400))
	t.Cleanup(func() {
		u.command("virsh", "-q", "-c", sessionURI, "destroy", "mine").Run() // it may be off
		if err := output(u.command("virsh", "-q", "-c", sessionURI, "undefine", "mine")); err != nil {
			t.Error(err)
		}
	})

	said := u.run(t, program, "setup", "mine", "--libvirt", sessionURI)
	contains(t, said, "done: add to mine: agent channel rum.agent.0", "no bridge networks")
	if strings.Contains(virsh("dumpxml", "mine"), "<interface") {
		t.Error("a NIC was added")
	}
	contains(t, u.run(t, program, "setup", "mine", "--libvirt", sessionURI), "mine: nothing to do")

	a := &hostAgent{socket: filepath.Join(u.dir, "agent.sock")}
	a.run(t, u.command(program, "run", "--socket", a.socket, "--libvirt", sessionURI))
	virsh("start", "mine")
	f, took := a.forward(t, "mine", 8080, "active", bootLimit, func(v status.VM, f status.Forward) bool {
		return f.State == status.Active && v.State == status.Connected && strings.HasPrefix(v.Endpoint, "serial:"+u.dir)
	})
	t.Logf("localhost:8080 leads to the guest %v after its start", took)
	if len(f.Listening) != 3 {
		t.Errorf("the port is on %v alone: %s", f.Listening, f.Reason)
	}
	for _, addr := range f.Listening {
		wantPage(t, addr, "mine")
	}
	u.run(t, program, "status", "--socket", a.socket)

	virsh("destroy", "mine")
	a.until(t, "the VM is gone", 10*time.Second, func(st status.Status) bool { return len(st.VMs) == 0 })
	if _, err := page(fmt.Sprintf("127.0.0.1:%d", f.Port)); err == nil {
		t.Error("the port still answers")
	}
}
