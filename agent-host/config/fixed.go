package config

import "net/netip"

// Sockets returns the rules that forward unix sockets of a VM to the host. No
// listener matches them: nobody is seen to listen on a socket. Of several rules
// for one socket the first is returned.
func (rs Rules) Sockets(vm string) []Rule {
	var out []Rule
	seen := make(map[string]bool)
	for i := range rs {
		r := &rs[i]
		if r.Reverse || r.GuestSocket == "" || seen[r.GuestSocket] || !r.forVM(vm) {
			continue
		}
		seen[r.GuestSocket] = true
		out = append(out, *r)
	}
	return out
}

// Reverses returns the reverse rules for a VM.
func (rs Rules) Reverses(vm string) []Rule {
	var out []Rule
	for i := range rs {
		if r := &rs[i]; r.Reverse && r.forVM(vm) {
			out = append(out, *r)
		}
	}
	return out
}

// ReverseIP are the addresses that a reverse rule about ports listens on in the
// guest.
func (r *Rule) ReverseIP() []netip.Addr { return r.GuestIP.listen() }
