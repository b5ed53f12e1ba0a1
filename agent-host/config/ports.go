package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Ports is a range of ports, both ends included. The zero value has none.
type Ports struct{ First, Last uint16 }

// allPorts is every port a listener can have.
var allPorts = Ports{1, math.MaxUint16}

// Len is how many ports there are.
func (p Ports) Len() int {
	if p == (Ports{}) {
		return 0
	}
	return int(p.Last) - int(p.First) + 1
}

// Has reports whether a port is one of them.
func (p Ports) Has(port uint16) bool { return p != Ports{} && p.First <= port && port <= p.Last }

func (p Ports) String() string {
	if p.First == p.Last {
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

// parsePorts reads "80" or "4000-4999".
func parsePorts(s string) (Ports, error) {
	bad := fmt.Errorf(`%q is not a port such as 8080 or a range such as "4000-4999"`, shorten(s))
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	first, err1 := strconv.ParseUint(strings.TrimSpace(from), 10, 32)
	last, err2 := strconv.ParseUint(strings.TrimSpace(to), 10, 32)
	if errors.Join(err1, err2) != nil {
		return Ports{}, bad
	}
	return portRange(int64(first), int64(last))
}

func portRange(first, last int64) (Ports, error) {
	for _, n := range []int64{first, last} {
		if n < 1 || n > math.MaxUint16 {
			return Ports{}, fmt.Errorf("%d is not a port; those are 1 to %d", n, math.MaxUint16)
		}
	}
	if first > last {
		return Ports{}, fmt.Errorf(`the range "%d-%d" ends before it begins`, first, last)
	}
	return Ports{uint16(first), uint16(last)}, nil
}
