package config

import (
	"path"
	"slices"
	"strings"
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
		d.errorf(b.at.key(keyHostSocket), "%s has this socket already", a.Name)
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
		d.errorf(b.at.key(keyGuestSocket), "%s listens on this socket already", a.Name)
		return true
	case max(a.Guest.First, b.Guest.First) <= min(a.Guest.Last, b.Guest.Last) && a.Guest.Len() > 0 && b.Guest.Len() > 0 &&
		collide(a.GuestIP.listen(), b.GuestIP.listen()):
		d.errorf(b.at.key(keyGuest), "%s listens on guest port %d already", a.Name, max(a.Guest.First, b.Guest.First))
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
func (r *Rule) hostKey() keyPath {
	if r.Host == r.Guest {
		return r.at.key(keyGuest)
	}
	return r.at.key(keyHost)
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
