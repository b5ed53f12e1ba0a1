//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/test/vm"
)

func answers(socket string) bool {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// virsh runs libvirt's own tool, so that what our code did is seen by other eyes.
func virsh(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "virsh", append([]string{"-q"}, args...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("virsh %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return stdout.String()
}

// define stores a domain and removes it, running or not, when the test ends.
func define(t *testing.T, name, xml string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".xml")
	if err := os.WriteFile(path, []byte(xml), 0o600); err != nil {
		t.Fatal(err)
	}
	virsh(t, "define", path)
	t.Cleanup(func() {
		exec.Command("virsh", "-q", "destroy", name).Run() // it may be off
		if err := output(exec.Command("virsh", "-q", "undefine", name)); err != nil {
			t.Error(err)
		}
	})
}

// rum runs rum-host-agent and returns what it printed.
func rum(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), filepath.Join(os.Getenv(binVariable), "rum-host-agent"), args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("rum-host-agent %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	t.Logf("$ rum-host-agent %s\n%s", strings.Join(args, " "), stdout.Bytes())
	return stdout.String()
}

// guestXML is a small domain that boots the test kernel.
func guestXML(t *testing.T, name string, guest vm.Initramfs, devices string) string {
	t.Helper()
	kernel, initrd := guestFiles(t, name, guest)
	return domainXML(name, kernel, initrd, "/run", devices)
}

// guestFiles are what a guest boots from.
func guestFiles(t *testing.T, name string, guest vm.Initramfs) (kernel, initrd string) {
	t.Helper()
	k, err := vm.FetchKernel(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	initrd = filepath.Join(t.TempDir(), "initramfs")
	guest.Hostname = name
	if err := guest.Write(t.Context(), k, initrd); err != nil {
		t.Fatal(err)
	}
	return k.Image, initrd
}

// domainXML is a domain whose console goes to a file in logs. Its spare root ports let devices be plugged in.
func domainXML(name, kernel, initrd, logs, devices string) string {
	return fmt.Sprintf(`<domain type='qemu'>
  <name>%s</name>
  <memory unit='MiB'>192</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>%s</kernel>
    <initrd>%s</initrd>
    <cmdline>quiet console=ttyS0</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <controller type='usb' model='none'/>
    <controller type='pci' model='pcie-root'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='virtio-serial' index='0'/>
    <serial type='file'><source path='%s/%s.console.log'/></serial>
    <memballoon model='none'/>
%s  </devices>
</domain>`, name, kernel, initrd, logs, name, devices)
}

// watch follows the domains until the test ends.
type watch struct {
	mu      sync.Mutex
	last    libvirt.Snapshot
	changed chan struct{} // closed and replaced at every snapshot
}

func startWatch(t *testing.T) *watch {
	t.Helper()
	w := &watch{changed: make(chan struct{})}
	watcher := &libvirt.Watcher{HostOnly: hostOnly, Log: slog.New(slog.DiscardHandler)}
	var wg sync.WaitGroup
	wg.Go(func() {
		err := watcher.Run(t.Context(), func(s libvirt.Snapshot) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.last = s
			close(w.changed)
			w.changed = make(chan struct{})
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(wg.Wait) // the context ends before cleanups run
	return w
}

// until waits for a snapshot that fits, and returns how long that took.
func (w *watch) until(t *testing.T, what string, limit time.Duration, fits func(libvirt.Snapshot) bool) (libvirt.Snapshot, time.Duration) {
	t.Helper()
	start := time.Now()
	timeout := time.After(limit)
	for {
		w.mu.Lock()
		last, changed := w.last, w.changed
		w.mu.Unlock()
		if fits(last) {
			return last, time.Since(start)
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("not within %v: %s\nlast snapshot: %+v", limit, what, last)
		}
	}
}

// domain waits until the named domain fits.
func (w *watch) domain(t *testing.T, name, what string, limit time.Duration, fits func(libvirt.Domain) bool) (libvirt.Domain, time.Duration) {
	t.Helper()
	var found libvirt.Domain
	_, took := w.until(t, name+": "+what, limit, func(s libvirt.Snapshot) bool {
		for _, d := range s.Domains {
			if s.Err == nil && d.Name == name && fits(d) {
				found = d
				return true
			}
		}
		return false
	})
	return found, took
}

// waitConsole waits until the guest has written text to its console.
func waitConsole(t *testing.T, name, text string) {
	t.Helper()
	path := "/run/" + name + ".console.log"
	deadline := time.Now().Add(bootLimit)
	for {
		log, _ := os.ReadFile(path)
		if bytes.Contains(log, []byte(text)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not on the console of %s: %q\n%s", name, text, log)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
