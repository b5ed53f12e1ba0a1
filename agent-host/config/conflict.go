package config

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/config/position"
)

// findConflicts records rules that cannot both have what they ask for: two
// guest ports on one host port, or the same thing said twice.
func (d *document) findConflicts(rules Rules) {
	for i := range rules {
		for j := range i {
			if rules.conflict(d, j, i) {
				break
			}
		}
	}
}

// conflict compares a rule with an earlier one.
func (rs Rules) conflict(d *document, earlier, later int) bool {
	a, b := &rs[earlier], &rs[later]
	if a.Reverse != b.Reverse || !a.shareVM(b) || !a.shareProto(b) {
		return false
	}
	if a.Reverse {
		return d.reverseConflict(a, b)
	}
	switch {
	case a.HostSocket != "" && a.HostSocket == b.HostSocket:
		d.errorf(b.at.Key(keyHostSocket), "%s has this socket already", a.Name)
		return true
	case a.HostSocket != "" || b.HostSocket != "" || !collide(a.HostIP, b.HostIP):
		return false
	}
	// rum tells [[ports]] apart by the address too, so a file with both is good. The later
	// one then waits for the host port.
	goodForRum := d.asRum(a.at) && d.asRum(b.at) && !slices.Equal(a.HostIP, b.HostIP)
	first, last := max(a.Host.First, b.Host.First), min(a.Host.Last, b.Host.Last)
	switch {
	case first > last || a.Host == (Ports{}) || b.Host == (Ports{}):
		return false // or one of them ignores
	case a.GuestSocket == b.GuestSocket && a.guestPort(first) == b.guestPort(first):
		// An exception before a rule for more is no mistake, nor are rules for different addresses or programs.
		if !goodForRum && !a.ofProgram() && (a.GuestIP == (GuestIP{}) || a.GuestIP == b.GuestIP) && a.Guest != allPorts && a.Guest.First <= b.Guest.First && b.Guest.Last <= a.Guest.Last {
			d.errorf(b.hostKey(), "%s has host port %d already, for the same guest port; make them one rule, or put the narrower one first", a.Name, first)
			return true
		}
		return false
	case a.Guest == allPorts || b.Guest == allPorts:
		// A rule for all ports is about what the others leave.
		return false
	}
	for port := int(first); port <= int(last); {
		taken := max(rs.taken(earlier, a.guestPort(uint16(port))), rs.taken(later, b.guestPort(uint16(port))))
		if taken == 0 && goodForRum {
			d.warnf(b.hostKey(), "%s has host port %d already, for another guest port, and of %v and %v only one is open at a time", a.Name, port, a.HostIP[0], b.HostIP[0])
			return true
		}
		if taken == 0 {
			d.errorf(b.hostKey(), "%s has host port %d already, for another guest port", a.Name, port)
			return true
		}
		port += taken
	}
	return false
}

// reverseConflict compares where two reverse rules listen in the guest.
func (d *document) reverseConflict(a, b *Rule) bool {
	switch {
	case a.GuestSocket != "" && a.GuestSocket == b.GuestSocket:
		d.errorf(b.at.Key(keyGuestSocket), "%s listens on this socket already", a.Name)
		return true
	case max(a.Guest.First, b.Guest.First) <= min(a.Guest.Last, b.Guest.Last) && a.Guest.Len() > 0 && b.Guest.Len() > 0 &&
		collide(a.GuestIP.listen(), b.GuestIP.listen()):
		d.errorf(b.at.Key(keyGuest), "%s listens on guest port %d already", a.Name, max(a.Guest.First, b.Guest.First))
		return true
	}
	return false
}

// guestPort is the guest's port behind a host port; 0 stands for a socket.
func (r *Rule) guestPort(host uint16) uint16 {
	if r.GuestSocket != "" {
		return 0
	}
	return r.Guest.First + (host - r.Host.First)
}

// taken is how many guest ports in a row a rule never gets to decide about,
// because one before it always does.
func (rs Rules) taken(rule int, guest uint16) int {
	n := 0
	for i := range rule {
		r := &rs[i]
		if guest != 0 && r.always() && r.Guest.Has(guest) && (r.VM == "" || r.VM == rs[rule].VM) && (r.Proto == Any || r.Proto == rs[rule].Proto) {
			n = max(n, int(r.Guest.Last)-int(guest)+1)
		}
	}
	return n
}

// always reports whether the rule matches any listener on its ports.
func (r *Rule) always() bool { return !r.Reverse && r.GuestIP == (GuestIP{}) && !r.ofProgram() }

// hostKey is the key that gives the host port.
func (r *Rule) hostKey() position.Path {
	if r.Host == r.Guest {
		return r.at.Key(keyGuest)
	}
	return r.at.Key(keyHost)
}

func (r *Rule) shareProto(o *Rule) bool {
	return r.Proto == o.Proto || r.Proto == Any || o.Proto == Any
}

// shareVM reports whether one VM can be meant by both. Two patterns are taken
// to have one in common; two names are the same or not. Rules of different VMs
// may want one host port: the VM that comes first has it, the other a claim.
func (r *Rule) shareVM(o *Rule) bool {
	const meta = `*?[\`
	switch {
	case r.VM == "" || o.VM == "":
		return true
	case !strings.ContainsAny(r.VM, meta):
		return o.forVM(r.VM)
	case !strings.ContainsAny(o.VM, meta):
		ok, _ := path.Match(r.VM, o.VM)
		return ok
	}
	return true
}

// Useless says which rules do nothing: those that only see what earlier ones have
// decided, and those for a host address that local does not know. Neither is a
// mistake of the file alone: the address may come, the earlier rule go.
func (rs Rules) Useless(local func(netip.Addr) bool) []string {
	var out []string
	for i := range rs {
		r := &rs[i]
		if r.auto != nil {
			continue
		}
		switch by := rs.before(i); {
		case by == nil:
		case r.exchanges(by):
			out = append(out, fmt.Sprintf("%s never matches: %s gives the guest port its place on the host, of which a port has one; remove one of the two, or have both in one table", r.Name, by.Name))
		default:
			out = append(out, fmt.Sprintf("%s never matches: %s decides about all that it is for; put it above", r.Name, by.Name))
		}
		for _, ip := range r.HostIP {
			if !r.Ignore && !r.Reverse && r.HostSocket == "" && !local(ip) {
				out = append(out, fmt.Sprintf("%s: %s %v is no address of this host now", r.Name, r.hostIPKey, ip))
			}
		}
	}
	return out
}

// exchanges reports whether a rule that an earlier one leaves nothing would leave that
// one nothing if it stood above it.
func (r *Rule) exchanges(earlier *Rule) bool {
	return r.Ignore == earlier.Ignore && r.leavesNothing(earlier, earlier.Guest.First) && r.leavesNothing(earlier, earlier.Guest.Last)
}

// before is the last of the earlier rules that together leave a rule nothing;
// nil when something is left.
func (rs Rules) before(rule int) *Rule {
	r := &rs[rule]
	if r.Reverse || r.Guest.Len() == 0 {
		return nil
	}
	var by *Rule
	for port := int(r.Guest.First); port <= int(r.Guest.Last); port++ {
		found := false
		for i := range rule {
			if e := &rs[i]; !r.joins(e) && e.leavesNothing(r, uint16(port)) {
				found, by, port = true, e, max(port, min(int(e.Guest.Last), int(r.Guest.Last)))
			}
		}
		if !found {
			return nil
		}
	}
	return by
}

// leavesNothing reports whether a rule decides about every listener on the port
// that a later one is for.
func (r *Rule) leavesNothing(later *Rule, port uint16) bool {
	// What stays in the guest by default is left to rules that say more.
	sameReach := r.Ignore || r.namesPort || !later.Ignore && !later.namesPort && !later.ofProgram()
	return r.auto == nil && r.GuestSocket == "" && r.always() && sameReach && r.Guest.Has(port) &&
		(r.VM == "" || r.VM == "*" || r.VM == later.VM) && (r.Proto == Any || r.Proto == later.Proto)
}
