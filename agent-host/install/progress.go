package install

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// progress says how much of a script has gone into a VM: on a terminal in a line that changes, elsewhere in one line at its beginning.
type progress struct {
	w        io.Writer
	terminal bool
	total    int
	gone     int
	shown    int // percent
}

// quiet is from how many bytes on there is something to say. ssh takes a pipe full of them, 64 KiB, before it has asked
// what it may ask on the same terminal.
const quiet = 128 << 10

func newProgress(w io.Writer, total int) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, terminal: ok && term.IsTerminal(int(f.Fd())), total: total, shown: -1}
}

func (p *progress) size() string { return fmt.Sprintf("%.1f MiB", float64(p.total)/(1<<20)) }

// sent takes into account that n more bytes have gone.
func (p *progress) sent(n int) {
	if p.gone == 0 && n > 0 && !p.terminal && p.total > quiet {
		fmt.Fprintf(p.w, "sending %s\n", p.size())
	}
	p.gone += n
	percent := p.gone * 100 / p.total
	if !p.terminal || p.gone <= quiet || percent == p.shown {
		return
	}
	p.shown = percent
	fmt.Fprintf(p.w, "\rsending %s: %d %%", p.size(), percent)
	if p.gone >= p.total {
		fmt.Fprintln(p.w)
	}
}

// reader counts what is read.
func (p *progress) reader(r io.Reader) io.Reader { return &progressReader{p, r} }

type progressReader struct {
	*progress
	r io.Reader
}

func (r *progressReader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	r.sent(n)
	return n, err
}
