// Package added is the forwards that commands add to the rules of a running agent: which
// there are, for which VM, and the rules that they are. What becomes of them is decided as
// for all rules; they last as long as the agent.
package added

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// refusal is why something is not added or taken back: fs.ErrExist where what was added
// before is in the way, and fs.ErrNotExist where it is not there.
type refusal struct {
	text string
	kind error
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.kind }

func refuse(kind error, format string, args ...any) error {
	return &refusal{fmt.Sprintf(format, args...), kind}
}

// most bounds how many there are, as a file's rules are bounded.
const most = 1000

// Forward is one of them.
type Forward struct {
	VM string
	config.Mapping
	Hold time.Duration
	At   time.Time
}

// RuleName names the rule of a forward in status.
func (f *Forward) RuleName() string { return status.AddedPrefix + f.At.Format(time.DateTime) }

// Set is the forwards that were added. The zero value is empty and ready to use.
type Set struct {
	mu  sync.Mutex
	all []Forward // in the order in which they were added
}

// Add adds a forward to a VM. The error wraps [fs.ErrExist] where it is there already, or
// another has a host port of it.
func (s *Set) Add(f Forward) error {
	if _, err := f.Rule("", f.Hold); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.all {
		switch o := &s.all[i]; {
		case o.VM != f.VM || o.Proto != f.Proto:
		case o.Mapping == f.Mapping:
			return refuse(fs.ErrExist, "%v of %s was added already, at %s", f.Mapping, f.VM, o.At.Format(time.TimeOnly))
		case o.Host.First <= f.Host.Last && f.Host.First <= o.Host.Last:
			return refuse(fs.ErrExist, "host port %d is given to %s already, by %v, which was added at %s",
				max(o.Host.First, f.Host.First), f.VM, o.Mapping, o.At.Format(time.TimeOnly))
		}
	}
	if len(s.all) == most {
		return refuse(fs.ErrExist, "%d forwards are added already, which is the most", most)
	}
	s.all = append(s.all, f)
	return nil
}

// Remove takes a forward back. The error wraps [fs.ErrNotExist] where it is not there.
func (s *Set) Remove(vm string, m config.Mapping) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.all, func(f Forward) bool { return f.VM == vm && f.Mapping == m })
	if i >= 0 {
		s.all = slices.Delete(s.all, i, i+1)
		return nil
	}
	there := "nothing was"
	var names []string
	for _, f := range s.all {
		if f.VM == vm {
			names = append(names, f.String())
		}
	}
	if len(names) > 0 {
		there = "there are " + strings.Join(names[:min(len(names), maxNamed)], ", ")
	}
	return refuse(fs.ErrNotExist, "%v was not added to %s; %s", m, vm, there)
}

// maxNamed bounds how many an error names.
const maxNamed = 10

// List returns the forwards of a VM, or with an empty name of all, in the order in which
// they were added.
func (s *Set) List(vm string) []Forward {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.all), func(f Forward) bool { return vm != "" && f.VM != vm })
}

// Rules are those of all forwards by VM, the newest first: a command is about what is there.
func (s *Set) Rules() map[string]config.Rules {
	rules := make(map[string]config.Rules)
	for _, f := range slices.Backward(s.List("")) {
		r, err := f.Rule(f.RuleName(), f.Hold)
		if err == nil { // as Add has seen
			rules[f.VM] = append(rules[f.VM], r)
		}
	}
	return rules
}
