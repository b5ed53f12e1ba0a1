//go:build e2evsock

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/shellword"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/vm"
)

// bootLimit is for a guest emulated in an emulated machine.
const bootLimit = 12 * time.Minute

// commandLimit is how long a command on the host VM may take, by the clock of that VM.
const commandLimit = 4 * time.Minute

// sh runs a command on the host VM.
func sh(t *testing.T, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit+time.Minute)
	defer cancel()
	limited := fmt.Sprintf("timeout -k 5 %.0f sh -c %s", commandLimit.Seconds(), shellword.Quote(command))
	out, err := host.Run(ctx, limited)
	if err == nil {
		return out
	}
	if ctx.Err() != nil && !errors.Is(err, vm.ErrEnded) {
		stalled(t, command)
	}
	if exit := (*vm.ExitError)(nil); errors.As(err, &exit) && exit.Status == 124 {
		state, _ := host.Run(t.Context(), "ps -eLo pid,ppid,stat,wchan:24,time,args; dmesg | tail -n 40; cat /run/agent.log; journalctl -q -n 60 -u libvirtd")
		out += "\nnot within " + commandLimit.String() + ", with this on the host VM:\n" + state
	}
	t.Fatalf("%s: %v\n%s", command, err, out)
	return ""
}

// stalled ends the attempt of a host VM that answers no more, although what it was asked for ends by its own clock.
func stalled(t *testing.T, command string) {
	t.Helper()
	hostStalled = true
	cpus, err := host.QMP(context.WithoutCancel(t.Context()), "human-monitor-command", map[string]string{"command-line": "info registers -a"})
	t.Fatalf("the host VM stalled: it did not end %q, which its own clock bounds by %v\n%s%v", command, commandLimit, strings.ReplaceAll(string(cpus), `\r\n`, "\n"), err)
}

// until polls the host agent's status until it fits.
func until(t *testing.T, what string, limit time.Duration, fits func(status.Status) bool) time.Duration {
	t.Helper()
	begin := time.Now()
	answered := begin
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		out, err := host.Run(ctx, "timeout -k 5 50 rum-host-agent status --json")
		if ctx.Err() == nil {
			answered = time.Now()
		} else if time.Since(answered) > commandLimit {
			stalled(t, "rum-host-agent status")
		}
		cancel()
		var st status.Status
		if err == nil && json.Unmarshal([]byte(out), &st) == nil && fits(st) {
			return time.Since(begin)
		}
		if errors.Is(err, vm.ErrEnded) {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		if time.Since(begin) > limit {
			agent, _ := host.Run(t.Context(), "cat /run/agent.log; cat /run/nested.console")
			t.Fatalf("not within %v: %s\n%v\n%s\n%s", limit, what, err, out, agent)
		}
		time.Sleep(2 * time.Second) // starting a program costs the host VM much of what the guest needs
	}
}

// wantPage waits until localhost:8080 on the host VM says the guest's name. A connection may be lost to the slowness of
// it all: an emulated guest can seem to be suspended.
func wantPage(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		got := strings.TrimSpace(sh(t, "echo | busybox nc -w 30 127.0.0.1 8080; true"))
		if got == "nested" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("localhost:8080 says %q", got)
		}
	}
}

// nested returns the nested guest's VM and its forward of port 8080, where they are known.
func nested(st status.Status) (vm status.VM, f status.Forward, ok bool) {
	for _, v := range st.VMs {
		for _, f := range v.Forwards {
			if v.Name == "nested" && f.Port == 8080 {
				return v, f, true
			}
		}
	}
	return vm, f, false
}

const domain = `<domain type="%[3]s">
  <name>%[1]s</name>
  <memory unit="MiB">192</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch="x86_64" machine="q35">hvm</type>
    <kernel>/cargo/vmlinuz</kernel>
    <initrd>/cargo/%[5]s</initrd>
    <cmdline>quiet console=ttyS0</cmdline>
  </os>
  <features><acpi/><apic/></features>
  %[4]s
  <devices>
    <controller type="usb" model="none"/>
    <serial type="file"><source path="/run/%[1]s.console"/></serial>
    <memballoon model="none"/>
    %[2]s
  </devices>
</domain>`

// define defines a domain whose guest has an agent without a key.
func define(t *testing.T, name, devices string) {
	t.Helper()
	defineGuest(t, name, "initramfs", devices)
}

// defineGuest defines a domain that boots an initramfs of the cargo. Where the host VM's processor, emulated or not, can
// virtualize, the nested guest is several times faster.
func defineGuest(t *testing.T, name, initramfs, devices string) {
	t.Helper()
	kind, cpu := "kvm", `<cpu mode="host-passthrough"/>`
	if _, err := host.Run(t.Context(), "test -e /dev/kvm"); err != nil {
		kind, cpu = "qemu", ""
	}
	xml := fmt.Sprintf(domain, name, devices, kind, cpu, initramfs)
	sh(t, fmt.Sprintf("cat >/run/%s.xml <<'END'\n%s\nEND\nvirsh -q define /run/%[1]s.xml", name, xml))
}

// TestForwardOverVsock is the way of a domain that nobody prepared: setup, start, and its port is on the host.
func TestForwardOverVsock(t *testing.T) {
	define(t, "nested", "")
	out := sh(t, "rum-host-agent setup nested")
	t.Logf("setup:\n%s", out)
	if !strings.Contains(out, "<cid auto='yes'/>") || strings.Contains(out, "rum.agent.0") {
		t.Error("setup did not choose vsock")
	}
	sh(t, "rum-host-agent run >/run/agent.log 2>&1 </dev/null &")
	sh(t, "virsh -q start nested")

	took := until(t, "the guest's port over vsock", bootLimit, func(st status.Status) bool {
		v, f, ok := nested(st)
		return ok && v.Endpoint == "vsock:3:1021" && v.State == status.Connected && f.State == status.Active && f.Path == "vsock"
	})
	t.Logf("found at its automatic CID and forwarded %v after its start", took)
	sh(t, "until grep 'the guest agent has come up' /run/agent.log; do sleep 1; done") // it knocked
	wantPage(t)

	until(t, "a bridge address", bootLimit, func(st status.Status) bool { v, _, _ := nested(st); return v.BridgeIP != "" })
	t.Logf("status:\n%s", sh(t, "rum-host-agent status"))
	var bridge string
	until(t, "its value", time.Minute, func(st status.Status) bool { v, _, _ := nested(st); bridge = v.BridgeIP; return bridge != "" })

	t.Run("the SSH server that systemd has at vsock port 22 is reached", func(t *testing.T) {
		if said := strings.TrimSpace(sh(t, "rum-host-agent proxy nested 22 </dev/null")); said != "SSH-2.0-greeter" {
			t.Errorf("port 22 says %q", said)
		}
	})

	t.Run("without the agent the bridge carries", func(t *testing.T) {
		sh(t, "echo | busybox nc -w 30 "+bridge+" 7001")
		took := until(t, "the bridge", 2*time.Minute, func(st status.Status) bool { _, f, ok := nested(st); return ok && f.Path == "bridge" })
		t.Logf("over the bridge after %v", took)
		wantPage(t)
		sh(t, "echo | busybox nc -w 30 "+bridge+" 7002")
		took = until(t, "vsock", 3*time.Minute, func(st status.Status) bool { _, f, ok := nested(st); return ok && f.Path == "vsock" })
		t.Logf("over vsock again after %v", took)
		wantPage(t)
	})

	t.Run("a guest with another CID is found", func(t *testing.T) {
		sh(t, "virsh -q destroy nested")
		until(t, "the guest is gone", time.Minute, func(st status.Status) bool { _, _, ok := nested(st); return !ok })
		// Another domain takes the CID; it need not boot.
		define(t, "taker", `<vsock model="virtio"><cid auto="no" address="3"/></vsock>`)
		sh(t, "virsh -q start taker --paused && virsh -q start nested")
		took := until(t, "the guest at CID 4", bootLimit, func(st status.Status) bool {
			v, f, ok := nested(st)
			return ok && v.Endpoint == "vsock:4:1021" && v.State == status.Connected && f.Path == "vsock"
		})
		t.Logf("found at its new CID %v after its start", took)
		wantPage(t)
	})
}
