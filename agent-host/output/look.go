package output

import (
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Look is how a status is to be written. The zero value is plain text of any width.
type Look struct {
	Colour bool
	Width  int   // in columns of a terminal; 0 for no limit
	Height int   // in lines; 0 for no limit
	Rates  Rates // shown where there are some
	// None is what is said where there is no VM to show; empty for that alone.
	None string
	// Flag is what commands that are told need besides, as with the agent at another socket; it begins with a space.
	Flag string
}

// Rates are what forwards carry in bytes a second, to clients and from them, by [RateKey].
type Rates map[string][2]float64

// RateKey tells forwards apart.
func RateKey(vm string, f *status.Forward) string {
	return strings.Join([]string{vm, f.Proto, strconv.Itoa(int(f.Port)), strings.Join(f.Host, ","), strconv.FormatBool(f.Reverse)}, " ")
}

// RatesOf are those between two statuses that are so far apart.
func RatesOf(before, now status.Status, apart time.Duration) Rates {
	was := make(map[string][2]uint64)
	for _, vm := range before.VMs {
		for i := range vm.Forwards {
			f := &vm.Forwards[i]
			was[RateKey(vm.Name, f)] = [2]uint64{f.BytesIn, f.BytesOut}
		}
	}
	rates := make(Rates)
	for _, vm := range now.VMs {
		for i := range vm.Forwards {
			f := &vm.Forwards[i]
			key := RateKey(vm.Name, f)
			// One that was opened anew counts from 0 again.
			if b, ok := was[key]; ok && f.BytesIn >= b[0] && f.BytesOut >= b[1] {
				rates[key] = [2]float64{float64(f.BytesIn-b[0]) / apart.Seconds(), float64(f.BytesOut-b[1]) / apart.Seconds()}
			}
		}
	}
	return rates
}

// Width is how many columns a file's terminal has, or COLUMNS says; 0 for no limit. A pipe has
// none.
func Width(f *os.File) int {
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// Height is how many lines a file's terminal has; 0 where it is none.
func Height(f *os.File) int {
	_, height, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return height
}

// columns is how wide a text is on a terminal: East Asian characters take two columns.
func columns(s string) int { return runewidth.StringWidth(s) }

// shorten cuts a text to so many columns.
func shorten(s string, width int) string { return runewidth.Truncate(s, max(1, width), "…") }

// wrapped are words in lines of so many columns, which begin with an indent. Width 0 is one line.
func wrapped(text, indent string, width int) string {
	if width <= 0 || columns(indent+text) <= width {
		return indent + text + "\n"
	}
	var b strings.Builder
	line := indent
	put := func() { b.WriteString(strings.TrimRight(line, " ") + "\n") }
	for word := range strings.FieldsSeq(text) {
		for columns(line+word) > width && strings.TrimSpace(line) != "" {
			put()
			line = indent
		}
		for room := width - columns(line); columns(word) > room; room = width - columns(line) {
			head := runewidth.Truncate(word, max(2, room), "")
			if head == "" {
				break // a character wider than there is room
			}
			line += head
			word = word[len(head):]
			put()
			line = indent
		}
		line += word + " "
	}
	if strings.TrimSpace(line) != "" {
		put()
	}
	return b.String()
}
