package libvirt

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
)

// Snapshot is what a [Watcher] knows.
type Snapshot struct {
	// Domains are all defined or running domains by name. While Err is set they are those last seen: VMs outlive their
	// libvirt daemon.
	Domains []Domain
	// Err is why the daemon cannot be asked now; nil when Domains is current.
	Err error
}

// Watcher reports the domains of a libvirt daemon and every change to them.
type Watcher struct {
	// URI is as for [Open].
	URI string
	// HostOnly is the libvirt network whose leases are the guests' bridge addresses; empty for none.
	HostOnly string
	Log      *slog.Logger

	// HostHasVsock says whether guests can have vsock here; nil asks the kernel.
	HostHasVsock func() bool
}

const (
	// A lease appears without an event, seconds after a start; later changes are rare.
	pollFirst = time.Second
	pollLast  = 10 * time.Second

	retryFirst = 250 * time.Millisecond
	retryLast  = 5 * time.Second
)

// Run calls seen with the set of domains at once and whenever it differs, until ctx ends; then it returns nil. A daemon
// that is absent, restarts or stops answering is reported in the snapshot and tried again. The calls come from one
// goroutine.
func (w *Watcher) Run(ctx context.Context, seen func(Snapshot)) error {
	s := &session{w: w, seen: seen, boots: map[string]life{}}
	retry := retryFirst
	for ctx.Err() == nil {
		err := s.run(ctx)
		if ctx.Err() != nil {
			break
		}
		if s.current {
			retry = retryFirst
		}
		s.lost(err)
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, retryLast)
	}
	return nil
}

// session is what a watcher remembers across connections.
type session struct {
	w    *Watcher
	seen func(Snapshot)

	mu      sync.Mutex
	boots   map[string]life // by UUID
	last    Snapshot
	told    bool
	current bool // the last snapshot came from this connection
}

// life tells one run of a VM from the next: libvirt's number changes with every start, a reboot keeps it.
type life struct {
	id    int32
	count int
}

func (s *session) run(ctx context.Context) error {
	s.current = false
	c, err := Open(ctx, s.w.URI)
	if err != nil {
		return err
	}
	defer c.Close()

	changed := make(chan struct{}, 1)
	for _, id := range []golibvirt.DomainEventID{
		golibvirt.DomainEventIDLifecycle, golibvirt.DomainEventIDReboot,
		golibvirt.DomainEventIDDeviceAdded, golibvirt.DomainEventIDDeviceRemoved,
	} {
		done := c.Bound(ctx, openLimit)
		err := c.subscribe(id, func(event any) {
			if e, ok := event.(*golibvirt.DomainEventCallbackRebootMsg); ok {
				s.rebooted(FormatUUID(e.Msg.Dom.UUID))
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		})
		done()
		if err != nil {
			return err
		}
	}

	for poll := pollFirst; ; poll = min(poll*3/2, pollLast) {
		domains, err := s.list(ctx, c)
		if err != nil {
			return err
		}
		s.current = true
		s.tell(Snapshot{Domains: domains})
		select {
		case <-ctx.Done():
			return nil
		case <-c.nc.lost:
			return fmt.Errorf("%w: the daemon closed the connection", ErrUnavailable)
		case <-changed:
			poll = pollFirst
		case <-time.After(poll):
		}
	}
}

func (s *session) rebooted(uuid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.boots[uuid]
	l.count++
	s.boots[uuid] = l
}

// booted returns the number of boots seen of a domain whose current run has the number id.
func (s *session) booted(uuid string, id int32) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.boots[uuid]
	if id != l.id && id > 0 {
		l.id = id
		l.count++
		s.boots[uuid] = l
	}
	return l.count
}

func (s *session) list(ctx context.Context, c *Conn) ([]Domain, error) {
	defer c.Bound(ctx, refreshLimit)()
	found, _, err := c.lv.ConnectListAllDomains(1, golibvirt.ConnectListDomainsActive|golibvirt.ConnectListDomainsInactive)
	if err != nil {
		return nil, fmt.Errorf("listing domains: %w", err)
	}
	v := view{hostOnly: s.w.HostOnly, hasVsock: s.w.HostHasVsock, neighbours: hostNeighbours(), onLink: onLink()}
	if v.hasVsock == nil {
		v.hasVsock = HostHasVsock
	}
	if v.hostOnly != "" {
		v.leases = c.leases(v.hostOnly)
	}
	domains := make([]Domain, 0, len(found))
	for _, dom := range found {
		d, err := c.inspect(dom, v)
		if golibvirt.IsNotFound(err) {
			continue // went away since it was listed
		}
		if err != nil {
			return nil, fmt.Errorf("domain %s: %w", dom.Name, err)
		}
		if d.State != Off {
			d.Boots = s.booted(d.UUID, dom.ID)
		}
		domains = append(domains, d)
	}
	sortDomains(domains)
	return domains, nil
}

// view is what the inspection of every domain needs.
type view struct {
	hostOnly           string
	leases, neighbours []address
	hasVsock           func() bool
	onLink             func(netip.Addr) bool
}

func (c *Conn) inspect(dom golibvirt.Domain, v view) (Domain, error) {
	d := Domain{Name: dom.Name, UUID: FormatUUID(dom.UUID), State: Off}
	state, _, err := c.lv.DomainGetState(dom, 0)
	if err != nil {
		return d, err
	}
	switch golibvirt.DomainState(state) {
	case golibvirt.DomainShutoff, golibvirt.DomainCrashed, golibvirt.DomainNostate:
		return d, nil
	case golibvirt.DomainPaused, golibvirt.DomainPmsuspended:
		d.State = Paused
	default:
		d.State = Running
	}
	xml, err := c.lv.DomainGetXMLDesc(dom, 0)
	if err != nil {
		return d, err
	}
	def, err := ParseDefinition(xml)
	if err != nil {
		d.Problem = err.Error()
		return d, nil
	}
	if images := def.Images(); len(images) > 0 {
		d.Disk = images[0]
	}
	d.Endpoint, d.Problem = def.endpoint(v.hasVsock())
	if d.Problem != "" && def.CID() == 0 {
		d.Problem += ": " + c.remedy(dom)
	}
	d.BridgeIP = bridgeIP(def.NICs(), v.hostOnly, v.leases, nil, v.onLink)
	if !d.BridgeIP.IsValid() {
		d.BridgeIP = bridgeIP(def.NICs(), v.hostOnly, nil, c.reported(dom, v.neighbours), v.onLink)
	}
	return d, nil
}

// remedy says what gives a running domain a way to its guest agent. What setup could not plug into it is in its
// definition, for its next start.
func (c *Conn) remedy(dom golibvirt.Domain) string {
	if text, err := c.lv.DomainGetXMLDesc(dom, golibvirt.DomainXMLInactive); err == nil {
		if def, err := ParseDefinition(text); err == nil && (def.HasVsock() || def.HasAgentChannel()) {
			return "its definition has one, which comes with its next start: shut it down, and start it"
		}
	}
	return "run 'rum-host-agent setup " + dom.Name + "'"
}

// tell passes on what differs from what was told before.
func (s *session) tell(now Snapshot) {
	same := s.told && s.last.Err == nil && now.Err == nil && slices.Equal(s.last.Domains, now.Domains)
	if same {
		return
	}
	if s.last.Err != nil && now.Err == nil {
		s.w.Log.Info("libvirt is back", "domains", len(now.Domains))
	}
	s.last, s.told = now, true
	s.seen(now)
}

// lost reports a connection that failed or ended; the same reason is told once.
func (s *session) lost(err error) {
	if s.last.Err != nil && s.last.Err.Error() == err.Error() {
		return
	}
	s.w.Log.Warn("libvirt cannot be asked; its VMs stay as last seen", "error", err)
	s.tell(Snapshot{Domains: s.last.Domains, Err: err})
}
