package metrics

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
)

// MaxPorts is how many ports of a VM have series of their own, some 25 each. Those of the others are summed, by protocol,
// under [Other].
const MaxPorts = 64

// Other is the port of series that are a sum.
const Other = "other"

// label is a port as series are told apart by it; its number is 0 for a sum.
type label struct {
	proto  string
	number uint16
}

func (l label) port() string {
	if l.number == 0 {
		return Other
	}
	return strconv.Itoa(int(l.number))
}

func (l label) compare(o label) int {
	return cmp.Or(cmp.Compare(l.proto, o.proto), cmp.Compare(l.number, o.number))
}

// ports are those of a VM that series are about. A port that was summed once is summed until it goes: its counters
// would begin anew otherwise, and those of the sum would fall.
type ports struct {
	own    map[label]*group
	summed map[label]bool
	sums   map[label]*group // by protocol
}

// group are the tallies that one series is made of: those of a port that is in several places, or of all that are summed.
type group struct {
	members map[*serve.Tally]bool
	gone    totals // of those that have gone
	open    bool   // all of them are
}

func newPorts() *ports {
	return &ports{own: make(map[label]*group), summed: make(map[label]bool), sums: make(map[label]*group)}
}

// update takes in which ports there are now.
func (p *ports) update(all []serve.Port) {
	now := make(map[label][]serve.Port)
	for _, port := range all {
		l := label{port.Key.Proto, port.Key.Port}
		now[l] = append(now[l], port)
	}
	for l := range p.own {
		if now[l] == nil {
			delete(p.own, l)
		}
	}
	labels := make([]label, 0, len(now))
	for l := range now {
		labels = append(labels, l)
	}
	slices.SortFunc(labels, label.compare)
	summed, sums := make(map[label]bool), make(map[label][]serve.Port)
	for _, l := range labels {
		g := p.own[l]
		switch {
		case g == nil && (p.summed[l] || len(p.own) >= MaxPorts || l.number == 0):
			summed[l] = true
			of := label{proto: l.proto}
			sums[of] = append(sums[of], now[l]...)
			continue
		case g == nil:
			g = &group{}
			p.own[l] = g
		}
		g.follow(now[l])
	}
	p.summed = summed
	for l := range sums {
		if p.sums[l] == nil {
			p.sums[l] = &group{}
		}
	}
	for l, g := range p.sums {
		g.follow(sums[l])
	}
}

// follow takes in which ports there are in the group now. What others have counted stays in its totals.
func (g *group) follow(now []serve.Port) {
	members := make(map[*serve.Tally]bool, len(now))
	g.open = true
	for _, port := range now {
		members[port.Tally] = true
		g.open = g.open && port.Open
	}
	for t := range g.members {
		if !members[t] {
			g.gone.add(t)
		}
	}
	g.members = members
}

// totals are those of all that are or were in the group, and active is how many connections there are.
func (g *group) totals() (t totals, active int64) {
	t = g.gone
	for m := range g.members {
		t.add(m)
		active += m.Active.Load()
	}
	return t, active
}
