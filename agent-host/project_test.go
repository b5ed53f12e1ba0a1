package hostagent_test

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// projectFile is a project whose file says that.
func projectFile(t *testing.T, id, text string) *hostagent.Project {
	t.Helper()
	c, err := config.ParseProject(id+".rum.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return &hostagent.Project{ID: id, Config: c, Status: func() status.Config { return status.Config{File: id + ".rum.toml", Found: true} }}
}

// library is a libvirt daemon whose domains a test changes, and projects that may have them.
type library struct {
	*hostagent.Discovery
	mu       sync.Mutex
	projects map[string]*hostagent.Project
	asked    []string // identities that keys were asked for
	store    *keys.Store
	seen     chan libvirt.Snapshot
	told     chan bool
}

func startLibrary(t *testing.T, agent *hostagent.Agent) *library {
	t.Helper()
	l := &library{projects: make(map[string]*hostagent.Project), seen: make(chan libvirt.Snapshot), told: make(chan bool)}
	l.Discovery = &hostagent.Discovery{
		Agent: agent, Source: "qemu:///system", Log: slog.New(slog.DiscardHandler),
		Project: func(dom libvirt.Domain) *hostagent.Project {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.projects[dom.Name]
		},
		Key: func(name, identity string) ([]byte, error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.asked = append(l.asked, identity)
			if l.store == nil {
				return nil, nil
			}
			key, err := l.store.Lookup(name, identity)
			return key[:], err
		},
		Watch: func(ctx context.Context, seen func(libvirt.Snapshot)) error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case s := <-l.seen:
					seen(s)
					l.told <- true
				}
			}
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = l.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

func (l *library) has(domains ...libvirt.Domain) {
	l.seen <- libvirt.Snapshot{Domains: domains}
	<-l.told
}

func (l *library) set(name string, p *hostagent.Project) {
	l.mu.Lock()
	l.projects[name] = p
	l.mu.Unlock()
	l.Refresh()
}

// guestDomain is a running domain whose guest agent is there, and what announces its ports.
func guestDomain(t *testing.T, name, uuid string) (libvirt.Domain, *guest) {
	t.Helper()
	g := newGuest(t)
	g.start()
	return libvirt.Domain{Name: name, UUID: uuid, State: libvirt.Running, Endpoint: g.vm(name).Endpoint.String(), Boots: 1}, g
}

func byName(agent *hostagent.Agent, name string) status.VM {
	for _, vm := range agent.Status().VMs {
		if vm.Name == name {
			return vm
		}
	}
	return status.VM{}
}

func where(vm status.VM) string {
	var out []string
	for _, f := range vm.Forwards {
		out = append(out, f.State+" "+strings.Join(f.Host, ","))
	}
	return strings.Join(out, "; ")
}

func TestEachDomainFollowsItsOwnProject(t *testing.T) {
	agent := startAgent(t)
	l := startLibrary(t, agent)
	port := echo(t)
	shop, shopGuest := guestDomain(t, "shop", "11111111-1111-1111-1111-111111111111")
	blog, blogGuest := guestDomain(t, "blog", "22222222-2222-2222-2222-222222222222")
	other, otherGuest := guestDomain(t, "other", "33333333-3333-3333-3333-333333333333")
	for _, g := range []*guest{shopGuest, blogGuest, otherGuest} {
		g.announce(port)
	}
	l.set("shop", projectFile(t, "aaaaaaaa", "[[forward]]\nhost_ip = \"127.9.8.1\"\n"))
	l.set("blog", projectFile(t, "bbbbbbbb", "[[forward]]\nignore = true\n"))
	l.has(blog, other, shop)
	is := func(name, want string) func([]status.VM) bool {
		return func(vms []status.VM) bool {
			i := slices.IndexFunc(vms, func(vm status.VM) bool { return vm.Name == name })
			return i >= 0 && strings.HasPrefix(where(vms[i]), want)
		}
	}
	within(t, agent, patience, "shop at its own address", is("shop", "active 127.9.8.1:"))
	within(t, agent, patience, "blog kept in", is("blog", "ignored "))
	within(t, agent, patience, "other by default", is("other", "active 127.0.0.1:"))
	if c := byName(agent, "shop").Config; c == nil || c.File != "aaaaaaaa.rum.toml" {
		t.Errorf("%+v", c)
	}
	if c := byName(agent, "other").Config; c != nil {
		t.Errorf("%+v", c)
	}
	// An edit of one moves that one alone.
	link := byName(agent, "shop").LastSeen
	l.set("shop", projectFile(t, "aaaaaaaa", "[[forward]]\nhost_ip = \"127.9.8.2\"\n"))
	within(t, agent, patience, "shop at another address", is("shop", "active 127.9.8.2:"))
	if now := byName(agent, "shop"); now.State != status.Connected || link == nil {
		t.Errorf("the link did not stay: %+v", now)
	}
	// The rules for all VMs are those of VMs without a project.
	agent.SetRules(rules(t, "[[ports]]\nhost_ip = \"127.9.8.3\"\n"))
	within(t, agent, patience, "other elsewhere", is("other", "active 127.9.8.3:"))
	within(t, agent, patience, "shop as it was", is("shop", "active 127.9.8.2:"))
	within(t, agent, patience, "blog as it was", is("blog", "ignored "))
	// A project that goes leaves its domain to them.
	l.set("blog", nil)
	within(t, agent, patience, "blog like others", func(vms []status.VM) bool {
		return byName(agent, "blog").Config == nil && len(byName(agent, "blog").Forwards) == 1
	})
	l.set("blog", projectFile(t, "bbbbbbbb", "[[forward]]\nignore = true\n"))
	within(t, agent, patience, "blog kept in again", is("blog", "ignored "))
}

func TestADomainDefinedAnewKeepsTheAddressKeyAndRulesOfItsProject(t *testing.T) {
	agent := startAgent(t)
	l := startLibrary(t, agent)
	port := echo(t)
	dom, g := guestDomain(t, "shop", "11111111-1111-1111-1111-111111111111")
	g.announce(port)
	l.set("shop", projectFile(t, "aaaaaaaa", "[[forward]]\nhost_ip = \"127.9.8.1\"\n"))
	l.has(dom)
	within(t, agent, patience, "forwarded", active(0, 1))
	before := byName(agent, "shop")
	if before.RedefinedAt != nil || !netip.MustParseAddr(before.Loopback).IsLoopback() {
		t.Errorf("%+v", before)
	}
	// rum undefines it, and defines it without a UUID.
	off := dom
	off.State, off.Endpoint = libvirt.Off, ""
	l.has(off)
	l.has()
	off.UUID = "99999999-9999-9999-9999-999999999999"
	l.has(off)
	dom.UUID = off.UUID
	l.has(dom)
	within(t, agent, patience, "forwarded again", active(0, 1))
	after := byName(agent, "shop")
	if after.Loopback != before.Loopback || where(after) != where(before) || after.RedefinedAt == nil {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, identity := range l.asked {
		if identity != keys.ProjectIdentity("aaaaaaaa") {
			t.Errorf("the key of %s was asked for", identity)
		}
	}
	if len(l.asked) < 2 {
		t.Errorf("%q", l.asked)
	}
}

// TestADomainOfNoProjectDefinedAnewIsLinkedToOnceSomebodySaysThatItIsTheSame: another VM may have been given the name.
func TestADomainOfNoProjectDefinedAnewIsLinkedToOnceSomebodySaysThatItIsTheSame(t *testing.T) {
	const was, is = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
	agent := startAgent(t)
	l := startLibrary(t, agent)
	store := keys.Store{Dir: filepath.Join(t.TempDir(), "keys")}
	if err := store.New("box", was); err != nil {
		t.Fatal(err)
	}
	key, err := store.Lookup("box", was)
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.store = &store
	l.mu.Unlock()
	g := newGuest(t)
	g.key = key[:]
	g.start()
	port := echo(t)
	g.announce(port)
	dom := libvirt.Domain{Name: "box", UUID: was, State: libvirt.Running, Endpoint: g.vm("box").Endpoint.String(), Boots: 1}
	l.has(dom)
	within(t, agent, patience, "forwarded", active(0, 1))
	l.has()
	dom.UUID = is
	l.has(dom)
	within(t, agent, patience, "the command", func(vms []status.VM) bool {
		return len(vms) == 1 && vms[0].State == status.Down && strings.Contains(vms[0].Error, "is for domain "+was+", this one is "+is) &&
			strings.Contains(vms[0].Error, "rum-host-agent keys bind box "+is)
	})
	if err := store.Bind("box", is); err != nil {
		t.Fatal(err)
	}
	within(t, agent, patience, "forwarded again", active(0, 1))
	if vm := byName(agent, "box"); vm.Auth != "psk" {
		t.Errorf("linked to with auth %q", vm.Auth)
	}
}
