package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// mark is the last line of what comes back from a VM where a script has run to its end. A login may lead to another
// command, which says neither so nor that it failed. [receive] puts it together, so that the mark is not in what is sent.
const mark = "rum-host-agent: the script has run to its end\n"

// proof passes on what is written, but for the mark at its end.
type proof struct {
	w    io.Writer
	held []byte // of which the mark may become
	last []byte // of what was passed on
}

func (p *proof) Write(b []byte) (int, error) {
	p.held = append(p.held, b...)
	return len(b), p.pass(max(0, len(p.held)-len(mark)))
}

// pass passes on the first n bytes of those that are held.
func (p *proof) pass(n int) error {
	gone := p.held[:n]
	p.held = p.held[n:]
	p.last = append(p.last, gone[max(0, n-maxTail):]...)
	p.last = p.last[max(0, len(p.last)-maxTail):]
	_, err := p.w.Write(gone)
	return err
}

// check is called when nothing more is written. It returns an error without the mark, which tells what came instead.
func (p *proof) check() error {
	if string(p.held) == mark {
		return nil
	}
	if err := p.pass(len(p.held)); err != nil {
		return err
	}
	said := string(bytes.TrimSpace(p.last))
	if said == "" {
		return errors.New("what answered there has not run the script, and printed nothing")
	}
	if i := strings.LastIndexByte(said, '\n'); i >= 0 {
		said = said[i+1:]
	}
	return fmt.Errorf("what answered there has not run the script; its last line is %.200q", said)
}
