package logring

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

func copied(t *testing.T, r *Ring, last int) []string {
	t.Helper()
	var b bytes.Buffer
	if err := r.Copy(&b, last, false, nil); err != nil {
		t.Fatal(err)
	}
	return strings.SplitAfter(strings.TrimSuffix(b.String(), "\n"), "\n")
}

func TestTheLastLinesAreKeptWithinTheirBounds(t *testing.T) {
	var r Ring
	for i := range 3 * MaxLines {
		fmt.Fprintf(&r, "line %d\n", i)
	}
	lines := copied(t, &r, 1<<30)
	if len(lines) != MaxLines || lines[0] != fmt.Sprintf("line %d\n", 2*MaxLines) {
		t.Errorf("%d lines are kept, from %q on", len(lines), lines[0])
	}
	if two := copied(t, &r, 2); len(two) != 2 || two[1] != fmt.Sprintf("line %d", 3*MaxLines-1) {
		t.Errorf("the last two are %q", two)
	}
	for range MaxLines {
		_, _ = r.Write([]byte(strings.Repeat("x", 2*maxLine) + "\n"))
	}
	lines = copied(t, &r, MaxLines)
	if n := len(strings.Join(lines, "")); n > MaxBytes || n < MaxBytes/2 {
		t.Errorf("%d bytes are kept", n)
	}
	if n := len(lines[0]); n > maxLine {
		t.Errorf("a line of %d bytes is kept", n)
	}
}

// TestWhoFollowsIsToldWhatItMissed reads nothing while more is written than is kept.
func TestWhoFollowsIsToldWhatItMissed(t *testing.T) {
	var r Ring
	fmt.Fprintln(&r, "first")
	ours, theirs := io.Pipe()
	gone := make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- r.Copy(theirs, 10, true, gone); _ = theirs.Close() }()
	read := func() string {
		b := make([]byte, 1<<20)
		got := make(chan string, 1)
		go func() { n, _ := ours.Read(b); got <- string(b[:n]) }()
		select {
		case s := <-got:
			return s
		case <-time.After(20 * time.Second):
			t.Fatal("nothing comes")
			return ""
		}
	}
	if got := read(); got != "first\n" {
		t.Fatalf("it begins with %q", got)
	}
	fmt.Fprintln(&r, "second")
	if got := read(); got != "second\n" {
		t.Fatalf("then comes %q", got)
	}
	for range 3 * MaxLines {
		fmt.Fprintln(&r, "more") // of which the first may be taken at once
	}
	if got := read(); strings.Contains(got, "missing") {
		t.Logf("%.80q", got)
	} else if got = read(); !strings.Contains(got, "lines of the log are missing") {
		t.Errorf("then comes %.80q", got)
	}
	close(gone)
	go func() { _, _ = io.Copy(io.Discard, ours) }()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
