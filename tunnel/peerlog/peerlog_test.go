package peerlog

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestAVMFillsItsOwnBudgetOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(NewHandler(slog.NewTextHandler(&out, nil), "vm"))
		noisy, good := log.With("vm", "noisy"), log.With("vm", "good")
		for range 10_000 {
			noisy.Warn("again")
			log.Info("port open", "vm", "noisy")
		}
		good.Info("hello")
		lines := strings.Count(out.String(), "vm=noisy")
		if lines != Burst {
			t.Errorf("%d lines of the noisy VM at once, want %d", lines, Burst)
		}
		if !strings.Contains(out.String(), "hello") {
			t.Error("another VM's line is missing")
		}
		out.Reset()
		time.Sleep(2 * time.Minute / PerMinute) // that some were left out is a line too
		noisy.Warn("again")
		if got := out.String(); !strings.Contains(got, fmt.Sprintf("%d more lines", 20_000-Burst)) || strings.Count(got, "vm=noisy") != 2 {
			t.Errorf("what was left out is not said: %s", got)
		}
		out.Reset()
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			noisy.Warn("again")
		}
		if lines := strings.Count(out.String(), "vm=noisy"); lines > PerMinute+1 {
			t.Errorf("%d lines in a minute, want at most %d", lines, PerMinute)
		}
	})
}

func TestWhoDebugsSeesEverything(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(NewHandler(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}), "vm"))
	for range 10 * Burst {
		log.Debug("detail", "vm", "dev")
	}
	if got := strings.Count(out.String(), "detail"); got != 10*Burst {
		t.Errorf("%d lines of %d", got, 10*Burst)
	}
}

func TestALogThatNobodyReadsStopsNobody(t *testing.T) {
	r, w := io.Pipe()
	q := newWriter(w, sayLost(slog.NewTextHandler(w, nil)))
	line := []byte(strings.Repeat("x", 1023) + "\n")
	for range 10_000 {
		if n, err := q.Write(line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	var out bytes.Buffer
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(&out, r) })
	q.Close(10 * time.Second)
	w.Close()
	reading.Wait()
	whole := strings.Count(out.String(), string(line))
	lost := 0
	for _, m := range regexp.MustCompile(`(\d+) lines of the log were lost`).FindAllStringSubmatch(out.String(), -1) {
		n, _ := strconv.Atoi(m[1])
		lost += n
	}
	if out.Len() > 3*maxQueued || lost != 10_000-whole {
		t.Errorf("%d bytes were written, %d lines, and %d were said to be lost; want %d", out.Len(), whole, lost, 10_000-whole)
	}

	_, stuck := io.Pipe()
	q = newWriter(stuck, nil)
	_, _ = q.Write(line)
	q.Close(10 * time.Millisecond) // returns although nothing can be written
}
