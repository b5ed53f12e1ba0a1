// Package suggest is which ports of the host status suggests for rules: always the same for one
// forward, and no port for two. It never knows what is at the ports.
package suggest

import "math"

// Port is one of the host; the zero value is none.
type Port struct {
	Proto string
	Port  int
}

// Ports are those that are suggested for forwards of type F, whose zero value is none.
type Ports[F comparable] map[Port]F

// most bounds the search: a guest may have thousands of services on one port, and beyond
// this a suggestion is not worth it.
const most = 16

// For suggests a port for f, which is at a port of the guest. taken tells of ports that mean
// something already.
func (all Ports[F]) For(f F, proto string, guest uint16, taken func(port uint16) bool) Port {
	var none F
	at := Port{proto, int(guest) + 10000}
	if at.Port > math.MaxUint16 {
		at.Port -= 20000
	}
	for range most {
		if all[at] == none && !taken(uint16(at.Port)) || at.Port == math.MaxUint16 {
			break
		}
		at.Port++
	}
	if all[at] == none {
		all[at] = f
	}
	return at
}

// Drop lets what was suggested for f be suggested for another.
func (all Ports[F]) Drop(f F, at Port) {
	if all[at] == f {
		delete(all, at)
	}
}
