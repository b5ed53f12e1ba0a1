package main

import "fmt"

// What is announced again and again is the same ports, of which something else is
// different each time.

func changeModes() []mode {
	change := func(name string, ports int, with func(round, i int) listener) mode {
		return mode{name: name, endpoint: many, polite: true, sink: chunk, session: func(s *session) {
			none := []byte{0, 0}
			for g := 1; ; g++ {
				all := listenersWith(0, make([]byte, 16), 20_000, ports, func(i int) listener { return with(g, i) })
				delta := append(append(number(uint64(g)), number(uint64(g+1))...), none...)
				if s.control(message(messageDelta, append(delta, all...))) != nil {
					return
				}
			}
		}}
	}
	return []mode{
		change("changing names", 1000, func(g, i int) listener {
			return listener{process: fmt.Sprintf("evil%d[%d]", g, 1+(g+i)%30_000)}
		}),
		change("names of many", 4000, func(g, i int) listener { return listener{process: fmt.Sprintf("evil[%d]", 1+(g+i)%30_000)} }),
		change("names and none", 1000, func(g, i int) listener {
			return listener{process: []string{"", "evil[666]"}[g&1]}
		}),
		change("changing ports", 1000, func(g, i int) listener { return listener{flags: byte(g & 1)} }),
		change("a few changing ports", 60, func(g, i int) listener { return listener{flags: byte(g & 1)} }),
		change("changing families", 1000, func(g, i int) listener { return listener{flags: byte(2 * (g & 1))} }),
		change("changing networks", 1000, func(g, i int) listener { return listener{iface: []string{"", "eth0"}[g&1]} }),
		change("changing users", 4000, func(g, i int) listener { return listener{uid: uint32(g*4000 + i)} }),
	}
}
