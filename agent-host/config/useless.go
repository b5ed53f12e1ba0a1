package config

import (
	"fmt"
	"net/netip"
)

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
