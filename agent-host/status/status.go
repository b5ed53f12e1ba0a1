package status

import (
	"net/netip"
	"slices"
	"time"
)

// States of a VM.
const (
	// Connecting: no attempt has failed yet since the agent started or the
	// link was lost.
	Connecting = "connecting"
	// Connected: there is a link, and the guest agent gives signs of life.
	Connected = "connected"
	// Paused: there is a link, but nothing has come from the guest for a
	// while, as when the VM is suspended.
	Paused = "paused"
	// Down: the last attempt to reach the guest agent failed.
	Down = "down"
	// Incompatible: something answers that this agent cannot talk to.
	Incompatible = "incompatible"
)

// States of a forward.
const (
	// Active: every host address of the rule listens.
	Active = "active"
	// Claim: one of them cannot be bound now; it is tried again until it can.
	Claim = "claim"
	// Ignored: a rule keeps this listener in the guest.
	Ignored = "ignored"
	// Denied: the system or a limit forbids one of them.
	Denied = "denied"
)

// ForwardStates are all states of a forward.
var ForwardStates = []string{Active, Claim, Denied, Ignored}

// Held is the reason of a forward that is active while nothing listens in the guest:
// clients wait, as their rule says, and most often the service is back before long.
const Held = "held"

// OwnMetrics is who has an address that this agent listens at for Prometheus, in a reason.
const OwnMetrics = "this agent's own --metrics"

// OwnPage is who has an address that this agent serves its page at, in a reason.
const OwnPage = "this agent's own --http"

// Released is the reason of a forward that is ignored because its host port was given back.
const Released = "released"

// Status is what a host agent knows.
type Status struct {
	Version       string  `json:"version"`
	PID           int     `json:"pid"`
	UptimeSeconds float64 `json:"uptime_seconds"`
	// Warning is what should be seen to although everything is served, as far as
	// it can be.
	Warning string `json:"warning,omitempty"`
	// Config is the file with the rules.
	Config Config `json:"config,omitzero"`
	// Projects are the files of rum's projects, whether or not their VMs run.
	Projects []Config `json:"projects,omitempty"`
	// Refused are work directories of rum's whose projects are not followed.
	Refused []Refused `json:"refused_projects,omitempty"`
	// Discovery is where VMs are looked for; empty when all were named.
	Discovery []Discovery `json:"discovery,omitempty"`
	// Setups are the domains that setup was run on and that were defined anew since.
	Setups []Setup `json:"setups,omitempty"`
	// Page is where the agent serves its page and the names of ports; nil for nowhere.
	Page *Page `json:"page,omitempty"`
	// Requests are the pages that VMs ask to open, and that wait for the user's answer; without their URLs.
	Requests []Request `json:"requests,omitempty"`
	VMs      []VM      `json:"vms"` // the last field: the server of control sends them one by one
}

// Query says how much of a status is wanted. Its zero value is everything.
type Query struct {
	VM   string // the only one that is wanted; empty for all
	Rows int    // how many forwards are wanted, the others being counted; 0 for all. Each VM has a few
	Port uint16 // the only one that is wanted, in the guest or on the host; 0 for all
	// State is that of the forwards that are wanted; empty for all.
	State string
}

// Some reports whether only some forwards are wanted, whichever rows there are.
func (q Query) Some() bool { return q.Port != 0 || q.State != "" }

// Of are those of forwards that are wanted.
func (q Query) Of(all []Forward) []Forward {
	if !q.Some() {
		return all
	}
	return slices.DeleteFunc(all, func(f Forward) bool {
		return q.State != "" && f.State != q.State || q.Port != 0 && f.Port != q.Port && !f.OnHost(q.Port)
	})
}

// OnHost reports whether a forward has, or wants, a port of the host.
func (f *Forward) OnHost(port uint16) bool {
	return slices.ContainsFunc(slices.Concat(f.Host, f.InsteadOf), func(a string) bool {
		at, err := netip.ParseAddrPort(a)
		return err == nil && at.Port() == port
	})
}

// Config is a configuration file.
type Config struct {
	File  string `json:"file"`  // also where none is, but would be read
	Found bool   `json:"found"` // whether rules of it are in use; else they are the default ones
	Why   string `json:"why"`   // why it is this file, such as "named with --config"
	Error string `json:"error"` // why it is not what counts; empty when it is
	// VM is the name of the only VM that it is for; empty for all that have no file of their own.
	VM string `json:"vm,omitempty"`
	// Warnings say what in it does nothing, and what rum will refuse.
	Warnings []string `json:"warnings,omitempty"`
}

// Refused is a work directory of rum's whose project is not followed.
type Refused struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
	Remedy string `json:"remedy"` // what to do about it
}

// Setup is a domain that setup was run on and that was defined anew since.
type Setup struct {
	// Domain is empty where it is not known what setup was run on: Error says why.
	Domain string `json:"domain"`
	Source string `json:"source"` // the libvirt daemon
	// RedefinedAt is when that was noticed.
	RedefinedAt time.Time `json:"redefined_at,omitzero"`
	// Done says what was put back, and what of it counts from the domain's next start on; empty when nothing was missing.
	Done []string `json:"done,omitempty"`
	// Error is why nothing could be put back, and what to do; empty when it could.
	Error string `json:"error,omitempty"`
}

// Page is where the agent serves its page, and the names of ports.
type Page struct {
	Addresses []string `json:"addresses"` // that are open, or wanted
	State     string   `json:"state"`     // Active or Claim
	Reason    string   `json:"reason"`    // why it is a claim
}

// VM is one virtual machine and its forwards.
type VM struct {
	Name string `json:"name"`
	// Host is the name of the other host that has the VM; empty for this one.
	Host         string `json:"host,omitempty"`
	Endpoint     string `json:"endpoint"`
	State        string `json:"state"`
	Auth         string `json:"auth"`          // "psk" or "none"; empty before the first link
	AgentVersion string `json:"agent_version"` // of the guest agent; empty before the first link
	// AgentArch is the GOARCH of the guest agent; empty where it does not say.
	AgentArch  string `json:"agent_arch,omitempty"`
	Generation uint64 `json:"generation"` // of the last announcement; 0 for none yet
	// LastSeen is when something last came from the guest; nil if nothing
	// ever has.
	LastSeen *time.Time `json:"last_seen"`
	// ClockAhead is how many seconds the guest's clock is ahead of this machine's, or behind where it is
	// negative; at least, and 0 where nothing is known, as of an older guest agent.
	ClockAhead float64 `json:"clock_ahead_seconds,omitempty"`
	BridgeIP   string  `json:"bridge_ip"` // empty when not known
	Loopback   string  `json:"loopback"`  // the VM's own host address in 127/8; empty for none
	// WebName is under which its ports have names, behind the port and a dot, such as "dev.localhost:7070";
	// empty while no names are served.
	WebName string `json:"web_name,omitempty"`
	Error   string `json:"error"`
	// Remedy is what to do about an error of the link; empty where nothing is known.
	Remedy string `json:"remedy,omitempty"`
	// Since is when the VM came up or went down, as far as the agent has seen.
	Since   time.Time `json:"since,omitzero"`
	Warning string    `json:"warning"` // what should be seen to, although the VM is served
	// RedefinedAt is when the VM was seen to be another libvirt domain of the same
	// project; nil if it never was.
	RedefinedAt *time.Time `json:"redefined_at,omitempty"`
	// Config is the file of the VM's own project; nil where [Status.Config] counts.
	Config   *Config   `json:"config,omitempty"`
	Forwards []Forward `json:"forwards"`
	// More counts by state the forwards that are left out; see [Query].
	More map[string]int `json:"more,omitempty"`
}

// Forward is one guest port, or unix socket, and where it is on the host.
type Forward struct {
	// Reverse: it is open in the guest, and Host is what it reaches.
	Reverse bool     `json:"reverse,omitempty"`
	Proto   string   `json:"proto"` // "tcp" or "udp"; "unix" for a socket in the guest
	Port    uint16   `json:"port"`  // in the guest; 0 for a socket
	Guest   []string `json:"guest"` // addresses that listen there
	// Host are the addresses on the host: those of the rule, bound or, for a
	// claim, wanted, and the VM's own one if that is bound.
	Host []string `json:"host"`
	// InsteadOf are the addresses of the rule where something has one of them, and Host has the
	// next port that was free.
	InsteadOf []string `json:"instead_of,omitempty"`
	// Listening are those of Host that take connections, which the VM's own
	// address may do whatever State says.
	Listening []string `json:"listening"`
	// State is that of the rule's addresses.
	State   string `json:"state"`
	Reason  string `json:"reason"` // why one of them, or the VM's own address, is not bound
	Path    string `json:"path"`   // "vsock", "unix", "mux" or "bridge"; empty when nothing could carry a connection
	Rule    string `json:"rule"`
	Label   string `json:"label,omitempty"` // what the rule is for, in its author's words
	Open    bool   `json:"open,omitempty"`  // the rule has a browser opened on it
	Process string `json:"process"`
	// URLs are those under which a browser finds it by name, by the label of its rule first.
	URLs []string `json:"urls,omitempty"`
	// AnnouncedAt is when the host agent heard of what listens in the guest, and Since when it got its state.
	AnnouncedAt time.Time `json:"announced_at,omitzero"`
	Since       time.Time `json:"since,omitzero"`

	ConnectionsActive int64  `json:"connections_active"`
	ConnectionsTotal  uint64 `json:"connections_total"`
	BytesIn           uint64 `json:"bytes_in"`   // from the guest to clients
	BytesOut          uint64 `json:"bytes_out"`  // from clients to the guest
	Dropped           uint64 `json:"dropped"`    // datagrams that were lost on the way, in either direction
	LastError         string `json:"last_error"` // of a connection; empty if none ever failed
	// LastErrorKind is what it is counted as, such as [ErrorCut]; empty where there is none.
	LastErrorKind string `json:"last_error_kind,omitempty"`
	// LastErrorAt is when that was; nil if it never was.
	LastErrorAt *time.Time `json:"last_error_at"`
}

// Kinds of errors of connections that are of the link, and not of the service.
const (
	// ErrorCut: the link was lost, or bytes of the connection were.
	ErrorCut = "cut"
	// ErrorNoWay: nothing reached the guest.
	ErrorNoWay = "no_way"
)

// OfLink reports whether the last error of a connection was one of the link.
func (f *Forward) OfLink() bool { return f.LastErrorKind == ErrorCut || f.LastErrorKind == ErrorNoWay }

// IsBack reports whether the last error of a forward was one of the link, which has come up since.
func (vm *VM) IsBack(f *Forward) bool {
	return f.OfLink() && vm.State == Connected && f.LastErrorAt != nil && f.LastErrorAt.Before(vm.Since)
}
