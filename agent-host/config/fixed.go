package config

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
