package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/shellword"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Facts are what is known of a port of a VM.
type Facts struct {
	VM    status.VM
	Proto string
	Port  uint16 // as it was asked for, or in the guest where Rule is there
	// Forward is what became of it; nil where nothing is announced there.
	Forward *status.Forward
	// Rule is the one that puts Port at HostPort of this host, where that is what was asked for and
	// nothing is announced; empty for none.
	Rule     string
	HostPort uint16
	// Twin says that the port of the other protocol is known.
	Twin bool
	// Off says that the VM does not run.
	Off bool
	// Own says that what listens there is this host agent itself.
	Own bool
	// Stopped is when the port was forwarded last, and Process whose it was; the zero time for
	// never, as far as is remembered.
	Stopped time.Time
	Process string
	Now     time.Time
}

// chain is an explanation that is being made.
type chain struct {
	Facts
	out status.Explanation
}

// Port explains a port.
func Port(f Facts) status.Explanation {
	c := chain{Facts: f, out: status.Explanation{VM: f.VM.Name, Proto: f.Proto, Port: f.Port, Works: true}}
	if f.Forward != nil {
		c.out.Proto, c.out.Port = f.Forward.Proto, f.Forward.Port
	}
	// The link is what all else is known by: its remedy comes first.
	link, remedy := c.link()
	if f.Forward == nil {
		c.absent(link, remedy)
	} else {
		c.present(link, remedy)
	}
	return c.out
}

func (c *chain) ok(name, format string, args ...any) {
	c.out.Steps = append(c.out.Steps, status.Step{Name: name, OK: true, Text: fmt.Sprintf(format, args...)})
}

// fail adds a step that fails. What is to be done about the first of them counts.
func (c *chain) fail(name, remedy, format string, args ...any) {
	c.out.Works = false
	c.out.Remedy = cmp.Or(c.out.Remedy, remedy)
	c.out.Steps = append(c.out.Steps, status.Step{Name: name, Text: fmt.Sprintf(format, args...)})
}

// linkFailed adds the link and the reason why it is none.
func (c *chain) linkFailed(why, remedy string) {
	if !c.keptFromBridge() {
		c.out.Remedy = remedy // whatever else fails may be for this
	}
	c.fail(status.StepLink, remedy, "%s", why)
}

// link says why the guest agent does not answer, and what to do; "" if it does.
func (c *chain) link() (why, remedy string) {
	vm := &c.VM
	switch {
	case c.Off:
		return vm.Name + " is off", "start it with: virsh start " + vm.Name
	case vm.State == status.Connected:
		return "", ""
	case vm.State == status.Paused:
		return fmt.Sprintf("%s gives no sign of life since %s ago, and may be paused; its connections stay", vm.Name, c.ago(vm.LastSeen)),
			"resume it, as with: virsh resume " + vm.Name
	case vm.State == status.Connecting:
		return "the first attempt to reach the guest agent goes on", "wait a moment, and ask again"
	}
	return fmt.Sprintf("%s is %s: %s", vm.Name, vm.State, cmp.Or(vm.Error, "the guest agent does not answer")), vm.Remedy
}

// absent explains a port on which nothing is announced.
func (c *chain) absent(link, remedy string) {
	at, puts := fmt.Sprintf("%d/%s", c.Port, c.Proto), ""
	if c.Rule != "" {
		puts = fmt.Sprintf("%s puts %s on port %d of this host; ", c.Rule, at, c.HostPort)
	}
	switch {
	case link != "":
		c.fail(status.StepListener, remedy, "%snobody knows whether something listens on %s: the guest agent does not answer", puts, at)
		c.linkFailed(link, remedy)
		return
	case c.Own:
		c.fail(status.StepListener, "nothing: connections would come back to the agent; another program in the guest may take another port",
			"%swhat listens on %s in the guest is this host agent itself: both are in one network, and its own listeners are not forwarded", puts, at)
	case !c.Stopped.IsZero():
		c.fail(status.StepListener, "start it again in the guest", "%snothing listens on %s any more; %s did until %s ago",
			puts, at, cmp.Or(c.Process, "something"), short(c.Now.Sub(c.Stopped)))
	case c.Twin:
		c.fail(status.StepListener, TwinHint(c.Proto, c.Port), "nothing is announced on %s; %s", at, TwinHint(c.Proto, c.Port))
	default:
		c.fail(status.StepListener, "start the service in the guest; if it runs, this says there why it is not announced: rum-guest-agent ports",
			"%snothing is announced on %s; sockets at a multicast or broadcast address are not, as nobody can connect to them", puts, at)
	}
	c.ok(status.StepLink, "%s is connected over %s", c.VM.Name, c.VM.Endpoint)
}

// TwinHint says what to do where only the port of the other protocol is known.
func TwinHint(proto string, port uint16) string {
	if proto == "udp" {
		return fmt.Sprintf("%d/tcp is there: leave --udp out", port)
	}
	return fmt.Sprintf("%d/udp is there: add --udp", port)
}

// present explains a port that is announced, or expected.
func (c *chain) present(link, remedy string) {
	f := c.Forward
	if link != "" && !c.byBridge() && !c.keptFromBridge() {
		c.out.Remedy = remedy
	}
	who := cmp.Or(f.Process, "a program")
	switch {
	case len(f.Guest) == 0:
		c.fail(status.StepListener, "start the service in the guest", "nothing listens there now; the rule keeps the port open for it")
	case f.Proto == "unix":
		c.ok(status.StepListener, "%s, a socket of the guest that is not looked at", f.Guest[0])
	case link != "":
		c.ok(status.StepListener, "%s listened on %s when the guest agent last answered", who, strings.Join(f.Guest, ", "))
	default:
		c.ok(status.StepListener, "%s listens on %s", who, strings.Join(f.Guest, ", "))
	}
	if !f.AnnouncedAt.IsZero() {
		c.ok(status.StepAnnounced, "%s ago", short(c.Now.Sub(f.AnnouncedAt)))
	}
	if c.released() {
		c.ok(status.StepRule, "%s puts it on %s", c.rule(), strings.Join(f.Host, ", "))
		c.fail(status.StepHost, "start the service in the guest anew; or change the rule", "given back with rum-host-agent release, until nothing listens on the port in the guest any more, and something does anew")
		c.tellLink(link, remedy)
		return
	}
	if f.State == status.Ignored {
		why := ": " + f.Reason
		if strings.HasSuffix(f.Reason, " by "+f.Rule) {
			why = "" // it says no more than that
		}
		c.fail(status.StepRule, c.letOut(), "%s keeps it in the guest%s", c.rule(), why)
		c.tellLink(link, remedy)
		return
	}
	c.ok(status.StepRule, "%s puts it on %s", c.rule(), cmp.Or(strings.Join(f.Host, ", "), "no address"))
	c.host()
	c.tellLink(link, remedy)
	c.lastError()
}

// rule is the name of the rule, and what that is for.
func (c *chain) rule() string {
	if f := c.Forward; f.Label != "" {
		return fmt.Sprintf("%s (%s)", f.Rule, f.Label)
	}
	return c.Forward.Rule
}

// released reports whether the host port was given back.
func (c *chain) released() bool {
	return c.Forward != nil && c.Forward.State == status.Ignored && c.Forward.Reason == status.Released
}

// keptFromBridge reports whether the port stays in the guest because only the guest agent reaches it.
func (c *chain) keptFromBridge() bool {
	return !c.released() && c.Forward != nil && c.Forward.State == status.Ignored && c.VM.BridgeIP != "" && c.VM.State != status.Connected
}

// byBridge reports whether connections come through without the guest agent.
func (c *chain) byBridge() bool { return c.Forward.Path == "bridge" }

func (c *chain) tellLink(link, remedy string) {
	switch f := c.Forward; {
	case link == "" && f.State == status.Ignored:
		c.ok(status.StepLink, "%s is connected over %s", c.VM.Name, c.VM.Endpoint)
	case link == "" && f.Path != "":
		c.ok(status.StepLink, "%s is connected over %s; connections go by %s", c.VM.Name, c.VM.Endpoint, f.Path)
	case link == "":
		c.ok(status.StepLink, "%s is connected over %s", c.VM.Name, c.VM.Endpoint)
	case c.byBridge():
		c.ok(status.StepLink, "connections go over the bridge to %s, because %s", c.VM.BridgeIP, link)
	default:
		c.linkFailed(link, remedy)
	}
}

// letOut is how a port that stays in the guest gets out of it.
func (c *chain) letOut() string {
	f := c.Forward
	if c.keptFromBridge() {
		return cmp.Or(c.VM.Remedy, "get the guest agent to answer") + "; or have the service listen on 0.0.0.0 for the bridge"
	}
	if f.Rule != "default" && f.Rule != "" {
		return "change the rule at " + f.Rule
	}
	udp := ""
	if f.Proto != "tcp" {
		udp = fmt.Sprintf(", proto = %q", f.Proto)
	}
	table := "[[ports]]"
	if udp != "" {
		table = "[[forward]]"
	}
	host := f.Port
	if host < 1024 {
		host += 8000
	}
	return fmt.Sprintf("add a rule to rum.toml: %s guest = %d, host = %d%s", table, f.Port, host, udp)
}

// host explains what became of the addresses on the host.
func (c *chain) host() {
	f := c.Forward
	open := strings.Join(f.Listening, ", ")
	switch {
	case f.State == status.Active && f.Reason == "":
		c.ok(status.StepHost, "open on %s", open)
	case f.State == status.Active && f.Reason == status.Held:
		c.ok(status.StepHost, "open on %s; clients wait for the service", open)
	case f.State == status.Active:
		c.ok(status.StepHost, "open on %s; but %s", open, f.Reason)
	default:
		why := f.Reason
		if open != "" {
			why += "; open on " + open
		}
		c.fail(status.StepHost, c.freeHost(open), "%s", why)
	}
}

// freeHost is how the host addresses of a forward are got.
func (c *chain) freeHost(open string) string {
	f := c.Forward
	own := ""
	if open != "" {
		own = ", or use " + open
	}
	if f.State == status.Denied {
		if port := privileged(f.Host); port != 0 {
			return fmt.Sprintf("allow it with: sudo sysctl -w net.ipv4.ip_unprivileged_port_start=%d; or %s%s", port, c.higherHost(), own)
		}
		return "do what the step above says" + own
	}
	if strings.HasSuffix(f.Reason, " by "+status.OwnMetrics) {
		return "run the agent with another port for --metrics; or give a rule for the port another host" + own
	}
	if strings.HasSuffix(f.Reason, " by "+status.OwnPage) {
		return "run the agent with another port for --http, or none; or give a rule for the port another host" + own
	}
	if vm, port := otherVM(f.Reason); vm != "" {
		return fmt.Sprintf("have it given back with: rum-host-agent release %d --vm %s; or give a rule for the port another host%s", port, shellword.Quote(vm), own)
	}
	return "end what has it there, and it is taken over; or give a rule for the port another host" + own
}

// otherVM is the VM that has a host port which a forward wants, as the reason says; empty where another program has it.
func otherVM(reason string) (vm string, port uint16) {
	m := heldByVM.FindStringSubmatch(reason)
	if m == nil {
		return "", 0
	}
	at, err := netip.ParseAddrPort(m[1])
	if err != nil {
		return "", 0
	}
	return m[2], at.Port()
}

var heldByVM = regexp.MustCompile(`^(\S+) is held by VM (.+?)(?:, for its port \d+)?$`)

// higherHost is how a forward gets a host port that anybody may have.
func (c *chain) higherHost() string {
	f := c.Forward
	if !strings.HasPrefix(f.Rule, status.AddedPrefix) {
		return "give the rule at " + f.Rule + " a host port from 1024 up"
	}
	return "take it back, and add it with a host port from 1024 up"
}

// privileged is a port below 1024 among addresses; 0 for none.
func privileged(addrs []string) uint16 {
	for _, a := range addrs {
		if at, err := netip.ParseAddrPort(a); err == nil && at.Port() < 1024 {
			return at.Port()
		}
	}
	return 0
}

// errorCounts is how long the last error of a connection makes a port suspect.
const errorCounts = 10 * time.Minute

func (c *chain) lastError() {
	f := c.Forward
	if f.LastError == "" || f.LastErrorAt == nil {
		c.ok(status.StepLastError, "none")
		return
	}
	age := c.Now.Sub(*f.LastErrorAt)
	switch {
	case age > errorCounts:
		c.ok(status.StepLastError, "%s ago: %s", short(age), f.LastError)
		return
	case c.VM.IsBack(f):
		c.ok(status.StepLastError, "%s ago, of the link, which is back since %s: %s", short(age), short(c.Now.Sub(c.VM.Since)), f.LastError)
		return
	case f.OfLink():
		c.fail(status.StepLastError, "see what became of the link with: "+"rum-host-agent watch "+c.VM.Name+" --since 10m", "%s ago: %s", short(age), f.LastError)
		return
	}
	c.fail(status.StepLastError, "look at the service in the guest: "+cmp.Or(f.Process, "it")+" may have died or be busy", "%s ago: %s", short(age), f.LastError)
}

func (c *chain) ago(t *time.Time) string {
	if t == nil {
		return "ever"
	}
	return short(c.Now.Sub(*t))
}

// short is a time that has passed, to the second.
func short(d time.Duration) string { return max(0, d).Truncate(time.Second).String() }
