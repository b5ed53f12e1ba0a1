package hostagent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
)

// discover runs a discovery that sees the given snapshots, and returns what the status says after each.
func discover(t *testing.T, agent *hostagent.Agent, snapshots ...libvirt.Snapshot) []string {
	t.Helper()
	var told []string
	d := hostagent.Discovery{
		Agent: agent, Source: "qemu:///system", Log: slog.New(slog.DiscardHandler),
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

func describe(st status.Status) string {
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

	got := discover(t, newAgent(),
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
	if err := agent.AddVM(hostagent.VM{Name: "web", Endpoint: endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: "/run/mine"}}); err != nil {
		t.Fatal(err)
	}
	web := libvirt.Domain{Name: "web", UUID: "1", State: libvirt.Running, Endpoint: "serial:/run/1"}
	off := web
	off.State = libvirt.Off
	for i, got := range discover(t, agent, libvirt.Snapshot{Domains: []libvirt.Domain{web}}, libvirt.Snapshot{Domains: []libvirt.Domain{off}}) {
		if got != "web unix:/run/mine ;" {
			t.Errorf("after snapshot %d: %q", i, got)
		}
	}
}

func TestADomainWhoseKeyIsAnothersIsNotLinkedTo(t *testing.T) {
	agent := newAgent()
	path := filepath.Join(t.TempDir(), "s")
	guest, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dialled := make(chan bool, 1)
	go func() {
		conn, err := guest.Accept()
		if err == nil {
			conn.Close()
		}
		dialled <- err == nil
	}()
	defer guest.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	asked := 0
	discovery := hostagent.Discovery{
		Agent: agent, Log: slog.New(slog.DiscardHandler),
		Key: func(name, uuid string) ([]byte, error) {
			if asked++; asked == 3 { // the second attempt has failed too
				cancel()
			}
			return nil, &keys.OtherDomainError{Path: "/keys/web.json", Name: name, Bound: "9", UUID: uuid}
		},
		Watch: func(ctx context.Context, seen func(libvirt.Snapshot)) error {
			seen(libvirt.Snapshot{Domains: []libvirt.Domain{{Name: "web", UUID: "1", State: libvirt.Running, Endpoint: "unix:" + path}}})
			return agent.Run(ctx)
		},
	}
	if err := discovery.Run(ctx); err != nil || asked != 3 {
		t.Fatalf("asked %d times for the key, error %v", asked, err)
	}
	vm := agent.Status().VMs[0]
	want := `/keys/web.json: key of "web" is for domain 9, this one is 1: the key belongs to another domain of that name; ` +
		"if it is the same VM, defined anew, bind its key to it with: rum-host-agent keys bind web 1; if it is another, and that one is gone, " +
		"forget the key with: rum-host-agent keys forget web; else give it another name"
	if vm.State != status.Down || !strings.HasPrefix(vm.Error, want) {
		t.Errorf("%s: %s", vm.State, vm.Error)
	}
	guest.Close()
	if <-dialled {
		t.Error("it was dialled all the same")
	}
}
