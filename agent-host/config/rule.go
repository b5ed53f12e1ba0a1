package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/config/position"
)

// maxRules bounds a file. It is a guard against a generator run wild.
const maxRules = 1000

// Proto is what a rule is about.
type Proto string

// Protocols of rules.
const (
	TCP Proto = "tcp"
	UDP Proto = "udp"
	Any Proto = "any"
)

// Has reports whether a listener's protocol is meant.
func (p Proto) Has(proto string) bool { return p == Any || string(p) == proto }

// Rule is one element of [[ports]] or [[forward]], with everything it leaves out filled in.
type Rule struct {
	// Name is the file and line of the rule, such as "rum.toml:12".
	Name string
	// Line is that of the file; 0 for a rule of none.
	Line int
	// VM is a glob for the names of VMs, as of [path.Match]; empty for all.
	VM    string
	Proto Proto

	// Guest are the ports in the guest, and Host those on the host, as many of
	// them: the first belongs to the first. The zero value stands for a socket.
	Guest, Host Ports
	GuestIP     GuestIP
	// HostIP is where to listen on the host; of a reverse rule, what to reach.
	HostIP []netip.Addr
	// Process is matched against the name of the program and its command line; nil for
	// any, also for one that is not known.
	Process *regexp.Regexp
	// Dir is the working directory of the program, or one above it; empty for any. A
	// leading ~ is the home of the user in the guest whose program it is.
	Dir string
	// GuestSocket and HostSocket are absolute paths of unix sockets in the
	// place of ports; empty for none. A leading ~ of HostSocket is expanded.
	GuestSocket, HostSocket string

	// Label is what the rule is for, in the user's words; empty for none.
	Label string
	// Open is what the rule says, and in which file, if it has a browser opened on the port; empty
	// if not. It stays the same when the rule moves, to another line or another table.
	Open string
	// NextFree takes the next free port of the host where another program or forward has one.
	NextFree bool
	// ProxyProtocol tells services their clients' addresses, by version 2 of the PROXY
	// protocol.
	ProxyProtocol bool
	// Hold is how long clients wait for a service that is not there for a moment; 0
	// for not at all.
	Hold time.Duration

	// Ignore keeps listeners in the guest; then nothing on the host side says
	// anything.
	Ignore bool
	// Static rules listen on the host before anything is seen to listen in
	// the guest, and after.
	Static bool
	// Reverse rules listen in the guest and reach the host.
	Reverse bool

	namesPort bool // guest is written
	adds      bool // it may be a place beside others for the same port: see joins
	asRum     bool // of [[ports]] in a file that rum reads too
	ofCommand bool // of no file
	at        position.Path
	hostIPKey string // host_ip, or bind where that is written
	auto      *auto  // of [auto_ports]; nil for all others
}

// Rules are tried in their order; the first that matches decides. What none
// matches is decided by [auto_ports].
type Rules []Rule

// forVM reports whether the rule is about a VM.
func (r *Rule) forVM(name string) bool {
	ok, err := path.Match(r.VM, name)
	return r.VM == "" || ok && err == nil
}

// isRemote reports whether a VM is one of another host, HOST/VM.
func isRemote(vm string) bool { return strings.Contains(vm, "/") }

// trusts reports whether the rule gives a VM more than ports: to one of another host does only a rule that names the host.
// In its pattern * is no slash.
func (r *Rule) trusts(vm string) bool {
	host, _, ok := strings.Cut(r.VM, "/")
	return !isRemote(vm) || ok && !strings.ContainsAny(host, `*?[\`)
}

// joins reports whether what the rule says is a place on the host beside that of an earlier
// one, and does not wait for that to go: to rum each of its [[ports]] is one. Of others those
// are that ask for the same listeners, and are in one table; the later one could mean nothing else.
// What a command gives a port is beside what a file does.
func (r *Rule) joins(first *Rule) bool {
	switch {
	case !r.adds || !first.adds:
		return false
	case first.ofCommand:
		forVM := *r
		forVM.VM = first.VM
		return forVM.asksTheSame(first)
	}
	return r.asRum && first.asRum || r.at.Parent() == first.at.Parent() && r.asksTheSame(first)
}

// asksTheSame reports whether two rules are for the same listeners.
func (r *Rule) asksTheSame(other *Rule) bool {
	return r.Guest == other.Guest && r.VM == other.VM && r.Proto == other.Proto && r.GuestIP == other.GuestIP &&
		r.Dir == other.Dir && r.program() == other.program()
}

// program is the pattern for the program; empty for any.
func (r *Rule) program() string {
	if r.Process == nil {
		return ""
	}
	return r.Process.String()
}

// ofProgram reports whether the rule asks for the program that listens.
func (r *Rule) ofProgram() bool { return r.Process != nil || r.Dir != "" }

// processName takes the process id off what portwatch calls a process.
func processName(process string) string {
	if i := strings.LastIndexByte(process, '['); i > 0 {
		return process[:i]
	}
	return process
}

// Ports is a range of ports, both ends included. The zero value has none.
type Ports struct{ First, Last uint16 }

// allPorts is every port a listener can have.
var allPorts = Ports{1, math.MaxUint16}

// Len is how many ports there are.
func (p Ports) Len() int {
	if p == (Ports{}) {
		return 0
	}
	return int(p.Last) - int(p.First) + 1
}

// Has reports whether a port is one of them.
func (p Ports) Has(port uint16) bool { return p != Ports{} && p.First <= port && port <= p.Last }

func (p Ports) String() string {
	if p.First == p.Last {
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

// parsePorts reads "80" or "4000-4999".
func parsePorts(s string) (Ports, error) {
	bad := fmt.Errorf(`%q is not a port such as 8080 or a range such as "4000-4999"`, shorten(s))
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	first, err1 := strconv.ParseUint(strings.TrimSpace(from), 10, 32)
	last, err2 := strconv.ParseUint(strings.TrimSpace(to), 10, 32)
	if errors.Join(err1, err2) != nil {
		return Ports{}, bad
	}
	return portRange(int64(first), int64(last))
}

func portRange(first, last int64) (Ports, error) {
	for _, n := range []int64{first, last} {
		if n < 1 || n > math.MaxUint16 {
			return Ports{}, fmt.Errorf("%d is not a port; those are 1 to %d", n, math.MaxUint16)
		}
	}
	if first > last {
		return Ports{}, fmt.Errorf(`the range "%d-%d" ends before it begins`, first, last)
	}
	return Ports{uint16(first), uint16(last)}, nil
}

// Words that stand for several addresses.
const (
	// WordAny is every address of the host.
	WordAny = "*"
	// WordLocalhost is what a program finds under the name localhost.
	WordLocalhost = "localhost"
	// WordLoopback is every loopback address of the guest.
	WordLoopback = "loopback"
	// WordWildcard is a listener on all addresses of the guest.
	WordWildcard = "wildcard"
)

var (
	wildcard4 = netip.IPv4Unspecified()
	wildcard6 = netip.IPv6Unspecified()
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
)

// GuestIP says which addresses of listeners a rule is about. The zero value is
// all.
type GuestIP struct {
	// Word is one of [WordLocalhost], [WordLoopback] and [WordWildcard], or
	// empty where IP counts.
	Word string
	IP   netip.Addr
}

func parseGuestIP(s string) (GuestIP, error) {
	switch s {
	case WordLocalhost, WordLoopback, WordWildcard:
		return GuestIP{Word: s}, nil
	}
	ip, err := parseIP(s)
	if err != nil {
		return GuestIP{}, fmt.Errorf("%q is neither an IP address nor one of %q", shorten(s),
			[]string{WordLocalhost, WordLoopback, WordWildcard})
	}
	if ip.Zone() != "" {
		return GuestIP{}, fmt.Errorf("the address of a listener has no zone; write %v", ip.WithZone(""))
	}
	if ip.IsUnspecified() {
		return GuestIP{Word: WordWildcard}, nil
	}
	return GuestIP{IP: ip}, nil
}

// matches reports whether a listener on that address is meant.
func (g GuestIP) matches(ip netip.Addr) bool {
	switch g.Word {
	case WordWildcard:
		return ip.IsUnspecified()
	case WordLoopback:
		return ip.IsLoopback()
	case WordLocalhost:
		return ip.IsUnspecified() || ip == loopback4 || ip == loopback6
	}
	return !g.IP.IsValid() || g.IP == ip
}

// Expected is the address that a listener nobody has seen yet is taken to have.
func (g GuestIP) Expected() netip.Addr {
	switch {
	case g.IP.IsValid():
		return g.IP
	case g.Word == WordLoopback:
		return loopback4
	}
	return wildcard4
}

// parseHostIP returns the addresses to listen on.
func parseHostIP(s string) ([]netip.Addr, error) {
	switch s {
	case WordAny:
		return []netip.Addr{wildcard4, wildcard6}, nil
	case WordLocalhost:
		return []netip.Addr{loopback4, loopback6}, nil
	}
	ip, err := parseIP(s)
	if err != nil {
		return nil, fmt.Errorf("%q is neither an IP address nor one of %q", shorten(s), []string{WordLocalhost, WordAny})
	}
	return []netip.Addr{ip}, nil
}

func parseIP(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, err
	}
	if ip = ip.Unmap(); ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return netip.Addr{}, errors.New("nothing listens on a multicast address")
	}
	return ip, nil
}

// collide reports whether two listeners on one port, with these addresses,
// would have one in common.
func collide(a, b []netip.Addr) bool {
	return slices.ContainsFunc(a, func(x netip.Addr) bool {
		return slices.ContainsFunc(b, func(y netip.Addr) bool {
			return x == y || x.Is4() == y.Is4() && (x.IsUnspecified() || y.IsUnspecified())
		})
	})
}

// listen are the addresses a reverse rule listens on in the guest.
func (g GuestIP) listen() []netip.Addr {
	switch {
	case g.IP.IsValid():
		return []netip.Addr{g.IP}
	case g.Word == WordWildcard:
		return []netip.Addr{wildcard4, wildcard6}
	}
	return []netip.Addr{loopback4, loopback6}
}
