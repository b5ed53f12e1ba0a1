package projects

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"github.com/rum-vm/rum-agent/agent-host/shellword"
)

// Refusal is a work directory whose project is not followed, or the directory of all of them.
type Refusal struct {
	Path   string
	Reason error
	// Remedy is what to do about it.
	Remedy string
}

// refused is an error that knows what to do about it.
type refused struct {
	error
	remedy string
}

func (r *refused) Unwrap() error { return r.error }

func refuse(remedy, format string, args ...any) error {
	return &refused{fmt.Errorf(format, args...), remedy}
}

func newRefusal(path string, err error) *Refusal {
	remedy := "let this user read it"
	if r, ok := errors.AsType[*refused](err); ok {
		remedy = r.remedy
	}
	return &Refusal{path, err, remedy}
}

// differs reports whether another refusal, or none, says something else.
func (r *Refusal) differs(other *Refusal) bool {
	if r == nil || other == nil {
		return r != other
	}
	return r.Path != other.Path || r.Reason.Error() != other.Reason.Error()
}

// Refused returns what the last Scan did not take, by path.
func (w *Watcher) Refused() []Refusal {
	var all []Refusal
	if w.unread != nil {
		all = append(all, *w.unread)
	}
	for _, e := range w.known {
		if e.refusal != nil {
			all = append(all, *e.refusal)
		}
	}
	slices.SortFunc(all, func(a, b Refusal) int { return cmp.Compare(a.Path, b.Path) })
	return all
}

// own refuses what is another user's, or might be another's tomorrow.
func own(path string) error {
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if uid := os.Geteuid(); int(st.Uid) != uid {
		remedy := fmt.Sprintf("run an agent as user %d", st.Uid)
		if uid != 0 { // which may have another's home, and should not take it from them
			remedy += fmt.Sprintf("; or, if it is yours, have root run: chown %d %s", uid, shellword.Quote(path))
		}
		return refuse(remedy, "%s belongs to user %d, not to %d", path, st.Uid, uid)
	}
	if st.Mode&0o002 != 0 {
		return refuse(fmt.Sprintf("if nobody has, run: chmod o-w %s", shellword.Quote(path)), "every user may change %s", path)
	}
	return nil
}
