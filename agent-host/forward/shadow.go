package forward

import (
	"fmt"
	"math"
)

// Where a VM has several services on one port, at different addresses, one host
// address cannot mean them all. It means the one that the guest itself finds at
// localhost; among others, the one that came first.

// preferred is the binding of the VM that b gives way to; nil for none.
func (b *binding) preferred() *binding {
	if !b.key.addr.IsValid() {
		return nil
	}
	f := b.vm.forwards[b.key.localhost()]
	switch {
	case f == nil:
		return nil
	case b.own:
		return f.own
	}
	return f.main
}

// displace takes from other services on the port what is b's by preference.
func (t *Table) displace(b *binding) {
	for _, h := range b.wanted {
		if r := t.bound[h]; r != nil && r.vm == b.vm && r.preferred() == b {
			t.remove(r)
			t.bind(r, false) // which fails, and says why
			t.claim(r)
		}
	}
}

// shadowedBy says what an address of the host means instead of b, and what would
// reach it.
func (b *binding) shadowedBy(r *binding, at hostAddr) string {
	f := b.forward
	port := int(f.key.port) + 10000
	if port > math.MaxUint16 {
		port -= 20000
	}
	proto := ""
	if f.key.proto != "tcp" {
		proto = fmt.Sprintf(", proto = %q", f.key.proto)
	}
	return fmt.Sprintf("%v means %v in the guest; a rule reaches %v: guest = %d, guest_ip = %q, host = %d%s",
		at, r.where(), f.where(), f.key.port, (*f.guest.Load())[0].Addr.Addr(), port, proto)
}

// where is what listens in the guest, or its first address.
func (f *forward) where() string {
	return (*f.guest.Load())[0].Addr.String()
}
