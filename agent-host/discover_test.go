package hostagent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/tunnel"
)

// discover runs a discovery that sees the given snapshots, and returns what the status says after each.
func discover(t *testing.T, agent *hostagent.Agent, key func(name, uuid string) ([]byte, error), snapshots ...libvirt.Snapshot) []string {
	t.Helper()
	var told []string
	d := hostagent.Discovery{
		Agent: agent, Source: "qemu:///system", Log: slog.New(slog.DiscardHandler), Key: key,
		Watch: func(_ context.Context, seen func(libvirt.Snapshot)) error {
			for _, s := range snapshots {
				seen(s)
				told = append(told, describe(agent.Status()))
			}
			return nil
		},
	}
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return told
}

func describe(st control.Status) string {
	var b strings.Builder
	for _, d := range st.Discovery {
		if d.Error != "" {
			fmt.Fprintf(&b, "[%s: %s] ", d.Source, d.Error)
		}
	}
	for _, vm := range st.VMs {
		fmt.Fprintf(&b, "%s %s %s; ", vm.Name, vm.Endpoint, vm.BridgeIP)
	}
	return strings.TrimSpace(b.String())
}

func newAgent() *hostagent.Agent {
	return hostagent.New(hostagent.Config{Log: slog.New(slog.DiscardHandler)})
}

func TestWhatRunsUnderLibvirtIsServed(t *testing.T) {
	web := libvirt.Domain{Name: "web", UUID: "1", State: libvirt.Running, Endpoint: "serial:/run/1", Boots: 1}
	db := libvirt.Domain{Name: "db", UUID: "2", State: libvirt.Off}
	leased, paused, rebooted, moved, off := web, web, web, web, web
	leased.BridgeIP = netip.MustParseAddr("192.168.50.101")
	paused.BridgeIP, paused.State = leased.BridgeIP, libvirt.Paused
	rebooted.BridgeIP, rebooted.Boots = leased.BridgeIP, 2
	moved.Endpoint, moved.Boots = "serial:/run/2", 3
	off.State, off.Endpoint = libvirt.Off, ""
	only := func(domains ...libvirt.Domain) libvirt.Snapshot { return libvirt.Snapshot{Domains: domains} }

	got := discover(t, newAgent(), nil,
		only(web, db), only(leased, db), only(paused, db), only(rebooted, db),
		libvirt.Snapshot{Domains: []libvirt.Domain{rebooted}, Err: errors.New("gone")},
		only(moved, db), only(off, db), only())
	want := []string{
		"web serial:/run/1 ;", "web serial:/run/1 192.168.50.101;", "web serial:/run/1 192.168.50.101;",
		"web serial:/run/1 192.168.50.101;", "[qemu:///system: gone] web serial:/run/1 192.168.50.101;",
		"web serial:/run/2 ;", "", "",
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("after snapshot %d: got %q, want %q", i, got[i], want[i])
		}
	}
}

func TestANameGivenOnTheCommandLineStaysItsOwn(t *testing.T) {
	agent := newAgent()
	if err := agent.AddVM(hostagent.VM{Name: "web", Endpoint: tunnel.Endpoint{Scheme: tunnel.SchemeUnix, Path: "/run/mine"}}); err != nil {
		t.Fatal(err)
	}
	web := libvirt.Domain{Name: "web", UUID: "1", State: libvirt.Running, Endpoint: "serial:/run/1"}
	off := web
	off.State = libvirt.Off
	for i, got := range discover(t, agent, nil, libvirt.Snapshot{Domains: []libvirt.Domain{web}}, libvirt.Snapshot{Domains: []libvirt.Domain{off}}) {
		if got != "web unix:/run/mine ;" {
			t.Errorf("after snapshot %d: %q", i, got)
		}
	}
}

func TestADomainWhoseKeyIsAnothersIsNotLinkedTo(t *testing.T) {
	agent := newAgent()
	web := libvirt.Domain{Name: "web", UUID: "1", State: libvirt.Running, Endpoint: "serial:/run/1", BridgeIP: netip.MustParseAddr("192.168.50.7")}
	key := func(name, uuid string) ([]byte, error) {
		return nil, fmt.Errorf("no key of %s fits %s", name, uuid)
	}
	got := discover(t, agent, key, libvirt.Snapshot{Domains: []libvirt.Domain{web}})
	if got[0] != "web  192.168.50.7;" {
		t.Errorf("got %q", got[0])
	}
}
