package rulefile

import (
	"errors"
	"fmt"
	"os"
)

// Why a rule is not put into a file.
var (
	// ErrByHand says that a person may do what this package leaves alone.
	ErrByHand = errors.New("it is left alone")
	// ErrTaken says that another rule has a host port of it.
	ErrTaken = errors.New("the host port is taken")
)

// refusal is an error of one of those kinds.
type refusal struct {
	text string
	kind error
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.kind }

func byHand(format string, args ...any) error {
	return &refusal{fmt.Sprintf(format, args...), ErrByHand}
}

// bare is an error without the path that it names.
func bare(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}
