package hostagent_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
)

// Two ids that lead to one address: the second in lexical order has the next.
const (
	meeting1 = "5d1f6b0e-2a58-4c3b-9a39-00000000030c"
	meeting2 = "5d1f6b0e-2a58-4c3b-9a39-00000000037d"
	meetAt   = "127.81.221.144"
	nextTo   = "127.81.221.145"
)

// loopbacksAfter tells the loopback addresses by VM after each snapshot.
func loopbacksAfter(t *testing.T, agent *hostagent.Agent, snapshots ...[]libvirt.Domain) (told []map[string]string) {
	t.Helper()
	d := hostagent.Discovery{
		Agent: agent, Source: "qemu:///system", Log: quiet,
		Watch: func(_ context.Context, seen func(libvirt.Snapshot)) error {
			for _, s := range snapshots {
				seen(libvirt.Snapshot{Domains: s})
				now := make(map[string]string)
				for _, vm := range agent.Status().VMs {
					now[vm.Name] = vm.Loopback
				}
				told = append(told, now)
			}
			return nil
		},
	}
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return told
}

func TestLoopbackAddressComesFromTheUUIDAmongAllDefinedDomains(t *testing.T) {
	first := libvirt.Domain{Name: "first", UUID: meeting1, State: libvirt.Off}
	second := libvirt.Domain{Name: "second", UUID: meeting2, State: libvirt.Running, Endpoint: "serial:/run/2"}
	started, renamed := first, second
	started.State, started.Endpoint, renamed.Name = libvirt.Running, "serial:/run/1", "renamed"

	got := loopbacksAfter(t, newAgent(), []libvirt.Domain{first, second}, []libvirt.Domain{second, started},
		[]libvirt.Domain{first, renamed}, []libvirt.Domain{renamed})
	for i, want := range []map[string]string{
		{"second": nextTo}, // the first does not run, but it may
		{"second": nextTo, "first": meetAt},
		{"renamed": nextTo},
		{"renamed": meetAt}, // the first is no longer defined
	} {
		if len(got[i]) != len(want) {
			t.Errorf("after snapshot %d: %v, want %v", i, got[i], want)
		}
		for name, ip := range want {
			if got[i][name] != ip {
				t.Errorf("after snapshot %d: %v, want %v", i, got[i], want)
			}
		}
	}
}

func TestVMOfTheCommandLineHasALoopbackAddressFromItsName(t *testing.T) {
	name := func(name string) hostagent.VM {
		return hostagent.VM{Name: name, Endpoint: endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: "/run/absent"}}
	}
	for _, names := range [][]string{{"dev"}, {"dev", "web"}, {"web", "dev"}} {
		agent := newAgent()
		for _, n := range names {
			add(t, agent, name(n))
		}
		i := slices.Index(names, "dev")
		if got := agent.Status().VMs[i].Loopback; got != "127.72.7.238" {
			t.Errorf("among %v: %s, which is not the address that people wrote down", names, got)
		}
	}
	// Nor do a domain and a VM of the command line have the same.
	agent := newAgent()
	add(t, agent, name(meeting2))
	got := loopbacksAfter(t, agent, []libvirt.Domain{{Name: "first", UUID: meeting1, State: libvirt.Running, Endpoint: "serial:/run/1"}})
	if got[0]["first"] != meetAt || got[0][meeting2] != nextTo {
		t.Errorf("%v", got)
	}
}

func TestBothVMsAnswerOnTheirOwnAddresses(t *testing.T) {
	t.Parallel()
	a, _, _, port := startTwo(t)
	within(t, a, patience, "second has it on its own address", func(vms []status.VM) bool {
		f := vms[1].Forwards
		return len(f) == 1 && f[0].State == status.Claim && slices.Equal(f[0].Listening, []string{onOwn(vms[1], port)})
	})
	vms := a.Status().VMs
	var open []net.Conn
	for _, vm := range vms {
		c, err := net.DialTimeout("tcp", onOwn(vm, port), patience)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	talk(t, open[0])
	talk(t, open[1])
	for i, vm := range a.Status().VMs {
		if vm.Forwards[0].ConnectionsTotal != 1 {
			t.Errorf("VM %d: %+v", i, vm.Forwards)
		}
	}
	a.RemoveVM("one")
	within(t, a, time.Second, "second has localhost too", active(0, 1))
	talk(t, open[1])
	if got := a.Status().VMs[0].Loopback; got != vms[1].Loopback {
		t.Errorf("the address moved from %s to %s", vms[1].Loopback, got)
	}
}

func onOwn(vm status.VM, port uint16) string {
	return netip.AddrPortFrom(netip.MustParseAddr(vm.Loopback), port).String()
}

func talk(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Error(err)
	}
}
